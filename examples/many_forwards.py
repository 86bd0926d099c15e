"""Several forwards before one backward, and several backwards of one forward, under one budget.

    python examples/many_forwards.py

The model alone is optimized. fxremat notices that a forward begins while an earlier one waits, or
that a backward keeps its graph, and plans such steps as a whole: from the third one on the budget
holds for all that is alive at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

import fxremat

WIDTH, ROWS = 48, 128


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Dropout(0.1)]
            layers += [nn.Linear(4 * WIDTH, WIDTH), nn.LayerNorm(WIDTH)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


Backward = Callable[[nn.Module, torch.Tensor], None]


def siamese(model: nn.Module, x: torch.Tensor) -> None:
    """Two branches, one loss."""
    left, right = x.chunk(2)
    (1 - F.cosine_similarity(model(left), model(right))).mean().backward()


def summed(model: nn.Module, x: torch.Tensor) -> None:
    """A loss summed over microbatches, one backward."""
    losses = [model(part).square().mean() for part in x.chunk(4)]
    torch.stack(losses).sum().backward()


def retained(model: nn.Module, x: torch.Tensor) -> None:
    """Two losses of one forward, each with a backward of its own."""
    y = model(x)
    y.square().mean().backward(retain_graph=True)
    y.abs().mean().backward()


def batches(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4 * ROWS, WIDTH, generator=generator) for _ in range(count)]


def train(model: nn.Module, data: Iterable[torch.Tensor], backward: Backward) -> Iterator[None]:
    """One step a batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x in data:
        backward(model, x)
        optimizer.step()
        optimizer.zero_grad()
        yield


def main() -> None:
    for backward in (siamese, summed, retained):
        model = fxremat.optimize(Encoder(), budget=0.7)
        run = train(model, batches(5), backward)
        for _ in range(4):
            next(run)
        peak = fxremat.measure_peak(lambda run=run: next(run)).peak_bytes
        budget = fxremat.explain_step(model).budget_bytes
        print(f"{backward.__name__}: {peak:,} B of {budget:,} B")


if __name__ == "__main__":
    main()
