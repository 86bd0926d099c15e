"""Models for the sweep's own tests: one for each way in which a model can come out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.sweep.parts import normal, seeded, workload
from benchmarks.zoo import Workload


class Layers(nn.Module):
    """A few layers, and something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 32))
        self.between = between
        self.last = nn.Sequential(nn.GELU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


def as_it_is(x: Tensor) -> Tensor:
    return x


def breaks(x: Tensor) -> Tensor:
    torch._dynamo.graph_break()
    return x


def chooses(x: Tensor) -> Tensor:
    """torch compiles sizes without a bound that depend on the data; no plan is made for them."""
    count = (x.detach() > 0).sum().item()
    torch._check(count >= 0)
    return x + x.new_ones(count, 1).mean()


def not_finite(x: Tensor) -> Tensor:
    return x / 0


def dies(_: Tensor) -> Tensor:
    os.abort()


def hangs(x: Tensor) -> Tensor:
    time.sleep(600)
    return x


class Interpolated(nn.Module):
    """Its gradients are rounded otherwise in AOTAutograd's graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.reshape(-1, 8, 4, 4)).tanh()
        return self.last(nn.functional.interpolate(x, scale_factor=2, mode="bilinear"))


@torch.library.custom_op("made_up::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """Runs in eager; AOTAutograd can't trace its backward."""
    return 2 * x


@torch.library.custom_op("made_up::untraceable", mutates_args=())
def untraceable(x: Tensor) -> Tensor:
    return 2 * x


@untraceable.register_fake
def _(_: Tensor) -> Tensor:
    raise NotImplementedError("nobody knows its shape")


twice.register_fake(torch.empty_like)
twice.register_autograd(lambda _, gradient: untraceable(gradient))


def squares(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return model(inputs["x"]).square().mean()


def missing() -> nn.Module:
    raise ValueError("no such configuration")


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "plain": lambda: Layers(as_it_is),
    "breaks": lambda: Layers(breaks),
    "chooses": lambda: Layers(chooses),
    "not-finite": lambda: Layers(not_finite),
    "missing": missing,
    "dies": lambda: Layers(dies),
    "hangs": lambda: Layers(hangs),
    "interpolated": Interpolated,
    "untraceable": lambda: Layers(twice),
}


def names() -> list[str]:
    return list(MODELS)


def make(name: str) -> Workload:
    return workload(seeded(MODELS[name]), {"x": normal(64, 8)}, squares)
