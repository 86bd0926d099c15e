"""A neural ODE: 48 classical Runge-Kutta steps (4 in the tiny size) through one small network.

Chen et al., "Neural Ordinary Differential Equations"; back-propagated through the solver.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload
from benchmarks.zoo.chain import TimeLoop

SIZES = {
    "tiny": {"steps": 4, "width": 4, "hidden": 8, "batch": 4},
    "bench": {"steps": 48, "width": 64, "hidden": 128, "batch": 512},
    "cuda": {"steps": 48, "width": 256, "hidden": 1024, "batch": 8192},
}


class Field(nn.Module):
    """The right-hand side dy/dt = f(t, y)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.time = nn.Parameter(0.1 * torch.randn(hidden))
        self.outer = nn.Linear(hidden, width)

    def forward(self, t: float, y: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(y) + t * self.time))


class Stretch(nn.Module):
    """`count` Runge-Kutta steps of length 1 / `steps`, from step number `start`."""

    def __init__(self, width: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.field = Field(width, hidden)
        self.length = 1.0 / steps

    def forward(self, y: Tensor, start: int, count: int) -> Tensor:
        h = self.length
        for i in range(start, start + count):
            t = i * h
            k1 = self.field(t, y)
            k2 = self.field(t + h / 2, y + h / 2 * k1)
            k3 = self.field(t + h / 2, y + h / 2 * k2)
            k4 = self.field(t + h, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y


class NeuralOde(nn.Module):
    """`stretch` is how many time steps one call of the solver's module runs."""

    def __init__(self, width: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.steps = Stretch(width, hidden, steps)
        self.count = steps
        self.stretch = steps

    def forward(self, y: Tensor) -> Tensor:
        for start in range(0, self.count, self.stretch):
            y = self.steps(y, start, min(self.stretch, self.count - start))
        return y


def loss(model: nn.Module, start: Tensor, end: Tensor) -> Tensor:
    return nn.functional.mse_loss(model(start), end)


def build(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        start = torch.randn(n["batch"], n["width"], generator=generator)
        return start, torch.randn(n["batch"], n["width"], generator=generator)

    model = NeuralOde(n["width"], n["hidden"], n["steps"])
    return Workload(model, sample, loss, TimeLoop("steps", n["steps"]))


CASES = (Case("ode48", "benchmarks.zoo.ode (RK4, 48 steps)", SIZES, build),)
