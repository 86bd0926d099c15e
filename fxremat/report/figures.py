"""What a report is made of, in figures."""

from __future__ import annotations

from dataclasses import dataclass

from fxremat.frontend.history import Origin
from fxremat.report.front import FrontPoint
from fxremat.report.orders import Timelines
from fxremat.report.shapes import PlannedShape


@dataclass(frozen=True)
class Row:
    """What the plan does with the operations of one line of code in one module.

    An operation of several nodes is its first node's.
    Identical layers are folded: `module` has ``*`` for their number and `layers` counts them.
    `kept_bytes` are residuals held from forward to backward. `recomputed_bytes` are what all
    recomputed runs make, `recomputed_flops` and `recomputed_seconds` (predicted) what they take;
    `recomputed` says how many operations are recomputed and `runs` how often in all. `policy` says
    what of them was asked to be kept.
    """

    module: str
    source: str
    layers: int
    operations: int
    kept_bytes: int
    recomputed: int
    runs: int
    recomputed_bytes: int
    recomputed_flops: int
    recomputed_seconds: float
    policy: str = ""


@dataclass(frozen=True)
class Figures:
    """One compiled graph's plan in figures. Memory in bytes, times in seconds a step.

    `budget_bytes` is the cap; `budget_from` says what it is a fraction of, where it is one.
    `baseline_peak_bytes` is the step memory with nothing recomputed, `planned_peak_bytes` under
    the plan; `residual_bytes` are held at the boundary of forward and backward. `extra_seconds`
    is predicted; `lower_bound_seconds` is what any schedule under the budget must take extra, at
    the least, and `status` what the solver knows. `floor_bytes` is the smallest budget that can
    be met, where `floor` was asked for it. `notes` say what the plan can't see.
    `timeline_bytes` and `baseline_timeline_bytes` are the memory while each step of the schedule
    runs, `boundary` and `baseline_boundary` the steps at which backward begins.
    `holders` are the values that hold the most at the smallest peak that is known: at the floor,
    or under the plan (description, bytes). `front` has other budgets, where they were solved.
    `timelines` say what is alive when.
    `executor` names what runs the step. `origin` says how the graph came by its plan; `shapes` has
    a line for each graph of the model.
    """

    budget_bytes: int
    budget_from: str
    baseline_peak_bytes: int
    planned_peak_bytes: int
    residual_bytes: int
    baseline_seconds: float
    extra_seconds: float
    lower_bound_seconds: float
    status: str
    solver: str
    floor_bytes: int | None
    solve_s: float
    planning_s: float
    capture_s: float
    input_shapes: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    holders: tuple[tuple[str, int], ...]
    timelines: Timelines
    timeline_bytes: tuple[int, ...]
    baseline_timeline_bytes: tuple[int, ...]
    boundary: int
    baseline_boundary: int
    origin: str = Origin.SEARCHED
    executor: str = "eager"
    shapes: tuple[PlannedShape, ...] = ()
    front: tuple[FrontPoint, ...] = ()
