"""`explain_step`: the plan of a step of several graphs, and what can't be planned of it."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.text import Text

from fxremat.errors import OptionError
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.step_budget import StepBudget
from fxremat.report.text import WIDTH, beginning, human_bytes, table_of
from fxremat.step.record import Kind
from fxremat.step.tracker import KindOfStep


@dataclass(frozen=True)
class PlannedCall:
    """One call of a graph in the step. Memory in bytes, times in seconds, predicted.

    `name` says where its code is, `ends_with` what ended the graph before its function did (empty
    where nothing did). `outside_bytes` are held outside of all graphs when its forward begins.
    """

    name: str
    ends_with: str
    outside_bytes: int
    saved_bytes: int
    extra_seconds: float


@dataclass(frozen=True)
class StepReport:
    """The plan of one kind of step. Memory in bytes, times in seconds a step.

    `baseline_peak_bytes` is the step memory with nothing recomputed; `outside_peak_bytes` the most
    that is held outside of the graphs at any moment, which no plan can change.
    """

    budget_bytes: int
    baseline_peak_bytes: int
    planned_peak_bytes: int
    outside_peak_bytes: int
    baseline_seconds: float
    extra_seconds: float
    lower_bound_seconds: float
    calls: tuple[PlannedCall, ...]

    def __rich__(self) -> RenderableType:
        share = 100 * self.extra_seconds / (self.baseline_seconds or 1.0)
        bound = 100 * self.lower_bound_seconds / (self.baseline_seconds or 1.0)
        head = (
            f"calls of graphs: {len(self.calls)}; {self.planned_peak_bytes:,} B of a budget of "
            f"{self.budget_bytes:,} (with nothing recomputed {self.baseline_peak_bytes:,}), "
            f"{share:.2f} % more time (no choice of plans takes less than {bound:.2f} %). At most "
            f"{self.outside_peak_bytes:,} B are held outside of the graphs"
        )
        table = table_of(
            "",
            ("graph", False),
            ("ends with", False),
            ("held outside", True),
            ("saved", True),
            ("recomputed", True),
        )
        for call in self.calls:
            table.add_row(
                Text(beginning(call.name, 36)),
                Text(beginning(call.ends_with, 24)),
                human_bytes(call.outside_bytes),
                human_bytes(call.saved_bytes),
                f"{1e3 * call.extra_seconds:.2f} ms",
            )
        return Group(Text(head), table)

    def __str__(self) -> str:
        text = io.StringIO()
        Console(width=WIDTH, file=text).print(self)
        return text.getvalue()


def explain_step(optimized: object) -> StepReport:
    """The report on what `optimize` compiled of a model that breaks into several graphs.

    Or on a `StepBudget`, of all that was compiled under it. Of steps that made different calls: on
    the kind that was recorded last. Raises `OptionError` where no step is planned, which it is when
    the second one begins.
    """
    shared = isinstance(optimized, StepBudget)
    backend = optimized.known if shared else compiled_of(optimized).backend
    tracker = backend and backend.tracker
    kinds = [] if tracker is None else [kind for kind in tracker.kinds if kind.plan is not None]
    if not kinds:
        raise OptionError(
            "no step of several graphs is planned: that is done when the second step begins. Of a "
            "model that is one graph `explain` tells"
        )
    return report_on_step(kinds[0])


def report_on_step(kind: KindOfStep) -> StepReport:
    """The report on one kind of step that has a plan."""
    plan = kind.plan
    assert plan is not None
    begins = {m.mark.call: m.outside_bytes for m in plan.moments if m.mark.kind is Kind.FORWARD}
    calls: list[PlannedCall] = []
    for index, (reference, chosen) in enumerate(zip(kind.parts, plan.plans, strict=True)):
        part = reference()
        calls.append(
            PlannedCall(
                name="(let go of)" if part is None else part.name,
                ends_with="" if part is None else part.ends_with,
                outside_bytes=begins.get(index, 0),
                saved_bytes=chosen.saved_bytes(frozenset()),
                extra_seconds=0.0 if part is None else chosen.cost - part.front.baseline.cost,
            )
        )
    return StepReport(
        budget_bytes=plan.budget_bytes,
        baseline_peak_bytes=plan.baseline_peak_bytes,
        planned_peak_bytes=plan.peak_bytes,
        outside_peak_bytes=max(moment.outside_bytes for moment in plan.moments),
        baseline_seconds=plan.baseline_cost,
        extra_seconds=plan.extra_seconds,
        lower_bound_seconds=max(0.0, plan.lower_bound - plan.baseline_cost),
        calls=tuple(calls),
    )
