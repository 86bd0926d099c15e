"""What a method of the benchmark is: a way of running one and the same training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from benchmarks.zoo import LossModule, Workload


class Unavailable(Exception):
    """The method can't be used here, or not on this model; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """A step that is ready to be called. `facts` is asked after the first steps: what the method
    says about itself (its prediction, its times), to be put beside what is measured.
    """

    call: Callable[..., Tensor]
    facts: Callable[[], Mapping[str, Any]] = field(default=dict)


@dataclass(frozen=True)
class Task:
    """What a method prepares: its own copy of the model, and the point of its dial, if it has one.

    `budget_bytes` is set where the point names bytes measured elsewhere.
    """

    workload: Workload
    step: LossModule
    point: str = ""
    budget_bytes: int | None = None


@dataclass(frozen=True)
class Method:
    """A named method; `points` are the settings of its dial that the full run tries."""

    name: str
    about: str
    prepare: Callable[[Task], Prepared]
    points: tuple[str, ...] = ("",)
    cuda_only: bool = False
