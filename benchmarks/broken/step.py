"""What a broken step is: a case of the zoo's kind that Dynamo can't trace as one graph."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from benchmarks.sweep import sources
from benchmarks.sweep.one import declare_torchvision
from benchmarks.zoo import Case, Workload


@dataclass(frozen=True)
class BrokenStep(Case):
    """A training step that falls into several graphs; `cause` says at what.

    `make("bench").step_module()` is the module of the whole step, its loss inside. Sizes are `tiny`
    (for tests) and `bench` (5 to 60 MiB of step memory, under two seconds on one core).
    """

    cause: str = field(kw_only=True)


def of_sweep(name: str) -> BrokenStep:
    """The step of a model of the sweep, which has one size; it is imported where it is made."""
    label = name.partition("/")[0]
    if label not in sources.SOURCES:
        raise ValueError(f"no source {label!r} of {name}; there are {', '.join(sources.SOURCES)}")

    def build(_numbers: object) -> Workload:
        declare_torchvision()
        return sources.make(name)

    return BrokenStep(name, label, {"bench": {}}, build, cause="a model of the sweep")


def whole(model: nn.Module, *batch: Tensor) -> Tensor:
    """The loss of a model that returns it."""
    return model(*batch)


def from_transformers(name: str) -> Any:
    """A class of transformers, which is imported only where a step of its is made."""
    return getattr(importlib.import_module("transformers"), name)
