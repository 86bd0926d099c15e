"""A selective state-space layer, as Mamba's, that runs along the sequence in a loop.

    python examples/loop_selective_scan.py

The state of a channel decays and takes in input at rates that depend on the input. A plain loop
keeps what every position computed for backward; here a few states are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import fxremat

SYMBOLS, CHANNELS, STATES, BATCH = 16, 32, 8, 8

Loop = Callable[..., Any]


class SelectiveScan(nn.Module):
    """Symbols in, scores of the next symbol out."""

    def __init__(self, loop: Loop, **options: Any) -> None:
        super().__init__()
        self.loop, self.options = loop, options
        self.embed = nn.Embedding(SYMBOLS, CHANNELS)
        self.rates = nn.Linear(CHANNELS, CHANNELS)
        self.mixes = nn.Linear(CHANNELS, 2 * STATES)
        decays = torch.arange(1, STATES + 1, dtype=torch.float32).log()
        self.log_decay = nn.Parameter(decays.repeat(CHANNELS, 1))
        self.skip = nn.Parameter(torch.ones(CHANNELS))
        self.norm, self.head = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, SYMBOLS)

    def step(self, state: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One position: the state of every channel, and what it shows."""
        rate = F.softplus(self.rates(x))[:, :, None]
        take, show = self.mixes(x).chunk(2, dim=-1)
        state = torch.exp(-rate * self.log_decay.exp()) * state
        state = state + rate * take[:, None, :] * x[:, :, None]
        return state, (state * show[:, None, :]).sum(-1) + self.skip * x

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        xs = self.embed(symbols).transpose(0, 1)
        state = xs.new_zeros(xs.shape[1], CHANNELS, STATES)
        _, shown = self.loop(self.step, state, xs=xs, outputs=True, **self.options)
        return self.head(self.norm(F.silu(shown))).transpose(0, 1)


def plain(step: Callable[[Any, Any], Any], state: Any, *, xs: torch.Tensor, outputs: bool) -> Any:
    """The plain loop, for comparison."""
    assert outputs
    shown: list[torch.Tensor] = []
    for x in xs.unbind():
        state, output = step(state, x)
        shown.append(output)
    return state, torch.stack(shown)


def batches(length: int) -> Iterator[torch.Tensor]:
    """Sequences that go up by five, or by three after an odd symbol, from a random one."""
    generator = torch.Generator().manual_seed(0)
    while True:
        symbols = [torch.randint(SYMBOLS, (BATCH,), generator=generator)]
        for _ in range(length - 1):
            last = symbols[-1]
            symbols.append((last + torch.where(last % 2 == 1, 3, 5)) % SYMBOLS)
        yield torch.stack(symbols, dim=1)


def train(model: SelectiveScan, length: int) -> Iterator[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for symbols in batches(length):
        optimizer.zero_grad()
        scores = model(symbols[:, :-1])
        loss = F.cross_entropy(scores.flatten(0, 1), symbols[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


def main(length: int = 513, iterations: int = 15) -> None:
    for name, loop, options in (("plain", plain, {}), ("loop", fxremat.loop, {"slots": 8})):
        torch.manual_seed(0)
        model = SelectiveScan(loop, **options)
        losses = train(model, length)
        next(losses)
        taken = fxremat.measure_peak(lambda losses=losses: next(losses)).peak_bytes / 2**20
        found = [next(losses) for _ in range(iterations)]
        print(f"{name:5}: {taken:6.1f} MiB a training step, loss {found[0]:.6f} to {found[-1]:.6f}")


if __name__ == "__main__":
    main()
