"""Backpropagation through 2,000 time steps of a GRU, not truncated, in a fixed budget.

    python examples/loop_bptt.py

The task needs memory over the whole sequence: the class is in its first step, and the loss at its
last one. Truncated backpropagation through time can't learn it at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import fxremat

CLASSES, WIDTH, BATCH = 4, 32, 32


class Memory(nn.Module):
    """A GRU that begins with long memory: its gates keep what they hold."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(CLASSES + 1, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        with torch.no_grad():
            # The update gate's bias (Tallec and Ollivier's chrono initialization).
            self.cell.bias_hh[WIDTH : 2 * WIDTH].uniform_(1.0, float(steps) - 1.0).log_()
            # They open where a class is shown.
            self.cell.weight_ih[WIDTH : 2 * WIDTH, :CLASSES] = -3.0

    def step(self, state: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x, state)


def batch(steps: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise after a first step that says the class."""
    classes = torch.randint(CLASSES, (BATCH,), generator=generator)
    xs = torch.zeros(steps, BATCH, CLASSES + 1)
    xs[0, :, :CLASSES] = 3.0 * F.one_hot(classes, CLASSES)
    xs[1:, :, CLASSES] = 0.1 * torch.randn(steps - 1, BATCH, generator=generator)
    return xs, classes


def looped(step: Callable[[Any, Any], Any], state: Any, xs: Any, **options: Any) -> Any:
    return fxremat.loop(step, state, xs=xs, **options)


def plain(step: Callable[[Any, Any], Any], state: Any, xs: Any) -> Any:
    for x in xs.unbind():
        state = step(state, x)
    return state


def train(
    model: Memory, steps: int, run: Callable[..., Any], **options: Any
) -> Iterator[tuple[float, float]]:
    """Losses, and how many of a batch are right."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    while True:
        xs, classes = batch(steps, generator)
        optimizer.zero_grad()
        scores = model.head(run(model.step, torch.zeros(BATCH, WIDTH), xs, **options))
        loss = F.cross_entropy(scores, classes)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield float(loss.detach()), float((scores.argmax(1) == classes).float().mean())


def main(steps: int = 2000, iterations: int = 12) -> None:
    torch.manual_seed(0)
    model = Memory(steps)
    xs, _ = batch(steps, torch.Generator())
    plan = fxremat.loop.plan(model.step, torch.zeros(BATCH, WIDTH), xs=xs, budget="2MiB")
    print(plan)
    for number, (loss, right) in enumerate(train(model, steps, looped, schedule=plan)):
        print(f"{number:3}: loss {loss:.3f}, {100 * right:.0f} % right")
        if number + 1 == iterations:
            break


if __name__ == "__main__":
    main()
