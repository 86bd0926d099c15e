"""What the sources share: workloads of a seed, inputs and losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from benchmarks.zoo import Batch, Workload

Sample = Callable[[Generator], Tensor]
Inputs = Mapping[str, Sample]


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A model in training mode, always with the same random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().train()


def workload(
    model: nn.Module, inputs: Inputs, loss: Callable[..., Tensor], *given: Any
) -> Workload:
    """A model called with named inputs; `loss` takes the model, these, and `given`."""
    keys = tuple(inputs)

    def sample(generator: Generator) -> Batch:
        return tuple(inputs[key](generator) for key in keys)

    def step(model: nn.Module, *batch: Tensor) -> Tensor:
        return loss(model, dict(zip(keys, batch, strict=True)), *given)

    return Workload(model, sample, step)


def normal(*shape: int) -> Sample:
    return lambda generator: torch.randn(*shape, generator=generator)


def integers(low: int, high: int, *shape: int) -> Sample:
    return lambda generator: torch.randint(low, high, shape, generator=generator)


def constant(value: Tensor) -> Sample:
    return lambda _: value.clone()


def first_tensor(found: Any) -> Tensor:
    """The first floating point tensor of what a model returns."""
    if isinstance(found, Tensor):
        return found
    parts = found.values() if isinstance(found, Mapping) else found
    for part in parts:
        if isinstance(part, Tensor) and part.is_floating_point():
            return part
        if isinstance(part, (tuple, list)) and part:
            return first_tensor(part)
    raise TypeError(f"no tensor in a {type(found).__name__}")


def mean_square(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """A loss for models that have none of their own."""
    return first_tensor(model(**inputs)).square().mean()


def own_loss(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return model(**inputs).loss
