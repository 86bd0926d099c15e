"""`explain`: what a plan keeps, what it recomputes, what that costs, and how good it is."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import overload

from rich.console import Console, RenderableType

from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.history import CompiledGraph, Origin
from fxremat.frontend.loop_slots import loops_of
from fxremat.frontend.outer_loss import outer_loss
from fxremat.graph import Operation
from fxremat.must_recompute import REMADE
from fxremat.nodes import depends_on_data, is_effect, module_path
from fxremat.plan.plan import Plan, holders_at_peak, source_line
from fxremat.policy import KEPT
from fxremat.report.figures import Figures, Row
from fxremat.report.front import FrontPoint
from fxremat.report.html import page_of
from fxremat.report.orders import Order, Timelines, timelines_of
from fxremat.report.plot import Timeline, plot_timelines
from fxremat.report.process import CompiledSteps, by_number, compiled_steps, one_of
from fxremat.report.shapes import planned_shapes
from fxremat.report.text import WIDTH as WIDTH
from fxremat.report.text import human_bytes as human_bytes
from fxremat.report.text import rendered
from fxremat_solvers import live_after

_NO_ORDER = Order("", (), (), (), (), (), (), 0)
_NOTHING = Timelines((), _NO_ORDER, _NO_ORDER)


@dataclass(frozen=True)
class Report(Figures):
    """One compiled graph's plan: print it, or see `Figures` for what it says."""

    def to_json(self) -> str:
        """All fields as a JSON object, but for what is alive when."""
        fields = asdict(replace(self, timelines=_NOTHING))
        del fields["timelines"]
        return json.dumps(fields)

    def to_html(self, path: str | Path) -> None:
        """Save one page that needs nothing else: the timeline, with what is alive, and the rest."""
        Path(path).write_text(page_of(self), encoding="utf-8")

    def with_front(self, front: tuple[FrontPoint, ...]) -> Report:
        """This report with what other budgets cost."""
        return replace(self, front=front)

    def plot(self, path: str | Path) -> None:
        """Save the memory timeline before and after, with the budget as a line (.png, .svg...)."""
        timelines = (
            Timeline("baseline", self.baseline_timeline_bytes, self.baseline_boundary),
            Timeline("planned", self.timeline_bytes, self.boundary),
        )
        plot_timelines(timelines, self.budget_bytes, Path(path))

    def __rich__(self) -> RenderableType:
        return rendered(self)

    def __str__(self) -> str:
        text = io.StringIO()
        Console(width=WIDTH, file=text).print(self)
        return text.getvalue()


@overload
def explain() -> CompiledSteps: ...
@overload
def explain(optimized: object, *, graph: int | None = None) -> Report: ...
@overload
def explain(*, graph: int) -> Report: ...
def explain(optimized: object = None, *, graph: int | None = None) -> Report | CompiledSteps:
    """The report on what `optimize` compiled: the newest graph, or another by its index.

    There is one graph for each input shape (and training flag); the report lists them all. Without
    arguments: a list of all graphs of the process, by `optimize` and by
    ``torch.compile(backend="fxremat")``; the report on one of them is ``explain(graph=number)``.
    Raises `OptionError` where nothing has been compiled yet, or for a graph that is not there.
    """
    if optimized is None and graph is None:
        return compiled_steps()
    index = -1 if graph is None else graph
    if optimized is None:
        backend, compiled = by_number(index)
        return report_on(compiled, backend.history.graphs)
    compiled = _compiled_graph(optimized, index)
    return report_on(compiled, compiled_of(optimized).backend.history.graphs)


def floor(optimized: object, *, graph: int = -1) -> int:
    """The smallest budget, in bytes, that can be met: what `BudgetInfeasible` names too.

    The first call searches for some seconds; it depends on sizes alone, not on measured times.
    `graph` and errors as `explain`.
    """
    return _compiled_graph(optimized, graph).plan.lowest.peak_bytes


def _compiled_graph(optimized: object, graph: int) -> CompiledGraph:
    return one_of(compiled_of(optimized).backend.history.graphs, graph)


def report_on(compiled: CompiledGraph, graphs: Sequence[CompiledGraph] = ()) -> Report:
    """The report on one compiled graph, of those that there are."""
    plan = compiled.plan
    boundary = plan.schedule.ops.index(plan.lowering.tangents_op)
    return Report(
        budget_bytes=plan.budget_bytes,
        budget_from=_budget_from(plan),
        baseline_peak_bytes=plan.baseline_peak_bytes,
        planned_peak_bytes=plan.peak_bytes,
        residual_bytes=sum(nbytes for _, nbytes in residuals(plan)),
        baseline_seconds=plan.baseline_seconds,
        extra_seconds=plan.extra_seconds,
        lower_bound_seconds=max(0.0, plan.solution.lower_bound - plan.baseline_seconds),
        status=str(plan.solution.status),
        solver=plan.solution.solver,
        floor_bytes=plan.lowest.peak_bytes if "lowest" in vars(plan) else None,
        solve_s=plan.solve_s,
        planning_s=compiled.planning_s,
        capture_s=compiled.capture_s,
        input_shapes=compiled.input_shapes,
        notes=_notes(compiled),
        rows=_rows(plan),
        holders=_holders(plan),
        timelines=timelines_of(plan),
        timeline_bytes=plan.simulation.running_bytes,
        baseline_timeline_bytes=plan.baseline.running_bytes,
        boundary=boundary,
        baseline_boundary=plan.lowering.plain.tangents_op,
        origin=compiled.origin,
        executor=plan.graph.executor,
        shapes=planned_shapes(graphs),
    )


def residuals(plan: Plan) -> list[tuple[int, int]]:
    """The values held from forward to backward, other than the user's outputs: (value, bytes)."""
    problem = plan.problem
    boundary = plan.schedule.ops.index(plan.lowering.tangents_op)
    live = live_after(problem, plan.simulation, boundary)
    outputs = {*problem.outputs, *problem.ops[plan.lowering.tangents_op].outputs}
    return [(value, problem.values[value].nbytes) for value in sorted(live - outputs)]


def _budget_from(plan: Plan) -> str:
    fraction = plan.options.budget.fraction
    if fraction is None:
        return ""
    largest = plan.budget_bytes > int(fraction * plan.baseline_peak_bytes)
    return f"{fraction:g} of {'the largest step seen' if largest else 'this step'}"


def _notes(compiled: CompiledGraph) -> tuple[str, ...]:
    plan = compiled.plan
    notes: list[str] = []
    is_part = compiled.origin is Origin.PART
    outside = None if is_part else outer_loss(plan)
    if is_part:
        notes.append(
            "This graph is one of several of its step, shown as it runs in the first one; "
            "explain_step has the plan of the whole step."
        )
    if outside is not None:
        notes.append(outside)
    if compiled.why_executor:
        notes.append(f"Run by executor {plan.graph.executor!r}: {compiled.why_executor}.")
    notes += map(str, loops_of(plan.graph.module))
    for how in (KEPT, REMADE):
        reasons = (o.mode.reason for o in plan.graph.operations if o.mode.reason.startswith(how))
        asked = Counter(reason.removeprefix(f"{how}: ") for reason in reasons)
        if asked:
            counts = ", ".join(f"{reason} {n}" for reason, n in asked.items())
            notes.append(f"Operations that are {how}: {counts}.")
    sized = sum(depends_on_data(node) for node in plan.graph.made_by)
    if sized:
        notes.append(
            f"The sizes of {sized} results depend on the data: they are planned for the largest "
            "that they can be, and steps with less take less than planned."
        )
    guessed = [
        operation.name
        for operation in plan.graph.operations
        # A buffer's update takes none.
        if not operation.cost.workspace_measured and not all(map(is_effect, operation.nodes))
    ]
    if guessed:
        notes.append(
            f"The workspace of {len(guessed)} operations could not be measured and is taken to be "
            f"0: {', '.join(guessed[:5])}{', ...' if len(guessed) > 5 else ''}."
        )
    return tuple(notes)


def _holders(plan: Plan) -> tuple[tuple[str, int], ...]:
    """What holds the floor's peak where that is known, else the plan's; the largest of it."""
    replay = plan.simulation
    if "lowest" in vars(plan):
        replay = plan.lowering.replay(plan.lowest.schedule)
    return holders_at_peak(plan.lowering, replay)[:12]


def _rows(plan: Plan) -> tuple[Row, ...]:
    kept: Counter[Operation] = Counter()
    lowering = plan.lowering
    maker = {storage: o for o in plan.graph.operations for storage in o.makes}
    for value, nbytes in residuals(plan):
        storage = lowering.storage_of[value]
        if storage in maker:
            kept[maker[storage]] += nbytes
    runs = lowering.reruns_in(plan.schedule)
    grouped: dict[tuple[str, str], list[tuple[Operation, int]]] = {}
    layers: dict[tuple[str, str], set[str]] = {}
    for op, operation in enumerate(lowering.operation_of):
        if operation is not None:
            module = module_path(operation.nodes[0])
            key = (folded(module), source_line(operation.nodes[0]))
            grouped.setdefault(key, []).append((operation, op))
            layers.setdefault(key, set()).add(module)
    rows = [_row(plan, key, found, len(layers[key]), runs, kept) for key, found in grouped.items()]
    wanted = [row for row in rows if row.kept_bytes or row.runs or row.policy]
    return tuple(sorted(wanted, key=lambda r: -r.kept_bytes - r.recomputed_bytes))


def _row(
    plan: Plan,
    key: tuple[str, str],
    found: Sequence[tuple[Operation, int]],
    layers: int,
    runs: Counter[int],
    kept: Counter[Operation],
) -> Row:
    problem = plan.problem
    again = [(operation, op, runs[op]) for operation, op in found if runs[op]]
    operations = {operation for operation, _ in found}
    return Row(
        module=key[0],
        policy=_asked_for(operations),
        source=key[1],
        layers=layers,
        operations=len(operations),
        kept_bytes=sum(kept[operation] for operation in operations),
        recomputed=len({operation for operation, _, _ in again}),
        runs=sum(count for _, _, count in again),
        recomputed_bytes=sum(
            count * sum(problem.values[v].nbytes for v in problem.reruns[op].outputs)
            for _, op, count in again
        ),
        recomputed_flops=sum(count * operation.cost.flops for operation, _, count in again),
        recomputed_seconds=math.fsum(
            count * operation.cost.seconds for operation, _, count in again
        ),
    )


def _asked_for(operations: Collection[Operation]) -> str:
    """What the user asks for of some of these."""
    reasons = [operation.mode.reason for operation in operations]
    asked = {"kept": KEPT, "recomputed": REMADE}
    return ", ".join(
        word for word, how in asked.items() if any(reason.startswith(how) for reason in reasons)
    )


def folded(path: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in path.split("."))
