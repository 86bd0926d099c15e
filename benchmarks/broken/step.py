"""What a broken step is: a case of the zoo's kind that Dynamo can't trace as one graph."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from benchmarks.zoo import Case


@dataclass(frozen=True)
class BrokenStep(Case):
    """A training step that falls into several graphs; `cause` says at what.

    `make("bench").step_module()` is the module of the whole step, its loss inside. Sizes are `tiny`
    (for tests) and `bench` (5 to 60 MiB of step memory, under two seconds on one core).
    """

    cause: str = field(kw_only=True)


def whole(model: nn.Module, *batch: Tensor) -> Tensor:
    """The loss of a model that returns it."""
    return model(*batch)


def from_transformers(name: str) -> Any:
    """A class of transformers, which is imported only where a step of its is made."""
    return getattr(importlib.import_module("transformers"), name)
