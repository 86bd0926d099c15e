"""A two-layer LSTM unrolled over 64 time steps (8 in the tiny size), dropout in between."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, labels
from benchmarks.zoo.chain import TimeLoop

SIZES = {
    "tiny": {"steps": 8, "width": 8, "batch": 2},
    "bench": {"steps": 64, "width": 256, "batch": 64},
    "cuda": {"steps": 64, "width": 1024, "batch": 512},
}
CLASSES = 10


class Stretch(nn.Module):
    """Some time steps of a two-layer LSTM."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lower = nn.LSTMCell(width, width)
        self.upper = nn.LSTMCell(width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, inputs: Tensor, h1: Tensor, c1: Tensor, h2: Tensor, c2: Tensor):
        for x in inputs.unbind(1):
            h1, c1 = self.lower(x, (h1, c1))
            h2, c2 = self.upper(self.dropout(h1), (h2, c2))
        return h1, c1, h2, c2


class UnrolledLstm(nn.Module):
    """`stretch` is how many time steps one call of the cells' module runs."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.steps = Stretch(width)
        self.head = nn.Linear(width, CLASSES)
        self.width = width
        self.stretch = steps

    def forward(self, inputs: Tensor) -> Tensor:
        zeros = torch.zeros(inputs.shape[0], self.width, device=inputs.device)
        state = (zeros, zeros, zeros, zeros)
        for part in inputs.split(self.stretch, 1):
            state = self.steps(part, *state)
        return self.head(state[2])


def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(inputs), targets)


def build(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        inputs = torch.randn(n["batch"], n["steps"], n["width"], generator=generator)
        return inputs, labels(generator, n["batch"], CLASSES)

    return Workload(
        UnrolledLstm(n["width"], n["steps"]), sample, loss, TimeLoop("steps", n["steps"])
    )


CASES = (Case("lstm64", "benchmarks.zoo.lstm (torch.nn.LSTMCell, 64 steps)", SIZES, build),)
