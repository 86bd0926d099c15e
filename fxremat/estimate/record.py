"""What an estimate answers, in figures. Bytes, seconds, and fractions of the step's time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from fxremat.estimate.batches import BatchSize
from fxremat.estimate.device import DeviceSpec
from fxremat.estimate.holders import Peak
from fxremat.estimate.resident import Resident
from fxremat_solvers import RematProblem, Schedule


@dataclass(frozen=True)
class Point:
    """A plan of the step: its memory and the extra time that it takes.

    `bound` is the least that any plan in as much memory takes; None where that isn't known.
    """

    step_bytes: int
    all_bytes: int
    extra: float
    bound: float | None
    fits: bool


@dataclass(frozen=True)
class Figures:
    """A training step on a device, with nothing recomputed and under budgets.

    `batch` is the first dimension of the inputs. `kernel_seconds` is the modelled time of forward
    and backward on the device, `dispatch_seconds` what Python takes beside it. `points` are the
    front, from the least step memory up to all of it; `at_budget` is the plan under the budget that
    was asked for, or under what the device has left. `batches` are the sizes that were looked at,
    `largest` the largest that fits at each extra time (None where none does). `minimum` says what
    is in memory at the peak of the plan of the least memory. `kernels` counts the ops that were
    mapped to those of the device, `notes` say how far to trust all this. `problem` is what was
    planned and `schedules` the plans of `points`.
    """

    device: DeviceSpec
    batch: int | None
    operations: int
    dtype: str
    optimizer: str
    resident: Resident
    budget_bytes: int
    kernel_seconds: float
    dispatch_seconds: float
    points: tuple[Point, ...]
    at_budget: Point | None
    batches: tuple[BatchSize, ...]
    largest: tuple[tuple[float, BatchSize | None], ...]
    minimum: Peak
    kernels: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    trace_s: float
    plan_s: float
    problem: RematProblem
    schedules: tuple[Schedule, ...]

    @property
    def step_seconds(self) -> float:
        """The time of forward and backward: the device and Python wait for the slower one."""
        return max(self.kernel_seconds, self.dispatch_seconds)

    @property
    def peak_bytes(self) -> int:
        """The step memory with nothing recomputed."""
        return self.points[-1].step_bytes

    @property
    def floor_bytes(self) -> int:
        """The least step memory that a plan was found for."""
        return self.points[0].step_bytes

    @property
    def fits(self) -> bool:
        """Whether the step fits by some plan, and the optimizer's step does."""
        return self.at_budget is not None and self.optimizer_fits

    @property
    def optimizer_fits(self) -> bool:
        """Whether the optimizer's step fits, beside gradients and what it takes meanwhile."""
        needed = self.resident.nbytes + self.resident.optimizer_step_bytes
        return needed <= self.device.usable_bytes

    def to_dict(self) -> dict[str, Any]:
        """All figures, without the problem and its schedules."""
        figures = {
            name: value
            for name, value in vars(self).items()
            if name not in ("problem", "schedules", "device", "largest")
        }
        for name in ("resident", "minimum"):
            figures[name] = asdict(figures[name])
        for name in ("points", "batches"):
            figures[name] = [asdict(each) for each in figures[name]]
        figures["at_budget"] = None if self.at_budget is None else asdict(self.at_budget)
        figures["kernels"] = dict(self.kernels)
        figures["notes"] = list(self.notes)
        figures["largest"] = [
            {"extra": cap, "batch": None if size is None else size.batch}
            for cap, size in self.largest
        ]
        device = {name: getattr(self.device, name) for name in vars(self.device)}
        figures["device"] = {**device, "product_flops": dict(self.device.product_flops)}
        answers = ("step_seconds", "peak_bytes", "floor_bytes", "fits", "optimizer_fits")
        return {**figures, **{name: getattr(self, name) for name in answers}}

    def to_json(self) -> str:
        """All figures as a JSON object."""
        return json.dumps(self.to_dict())
