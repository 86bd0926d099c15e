"""`explain`: what a plan keeps, what it recomputes, what that costs, and how good it is."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text
from torch import fx

from fxremat.errors import OptionError
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.history import CompiledGraph, Origin
from fxremat.frontend.outer_loss import outer_loss
from fxremat.graph import Operation
from fxremat.nodes import depends_on_data, is_effect
from fxremat.plan.options import EXECUTORS
from fxremat.plan.plan import Plan, source_line
from fxremat.report.plot import Timeline, plot_timelines
from fxremat.report.shapes import PlannedShape, planned_shapes
from fxremat_solvers import live_after


@dataclass(frozen=True)
class Row:
    """What the plan does with the operations of one line of code in one module.

    An operation of several nodes is its first node's.
    Identical layers are folded: `module` has ``*`` for their number and `layers` counts them.
    `kept_bytes` are residuals held from forward to backward. `recomputed_bytes` are what all
    recomputed runs make, `recomputed_flops` and `recomputed_seconds` (predicted) what they take;
    `recomputed` says how many operations are recomputed and `runs` how often in all.
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


@dataclass(frozen=True)
class Report:
    """One compiled graph's plan in figures. Memory in bytes, times in seconds a step.

    `budget_bytes` is the cap; `budget_from` says what it is a fraction of, where it is one.
    `baseline_peak_bytes` is the step memory with nothing recomputed, `planned_peak_bytes` under
    the plan; `residual_bytes` are held at the boundary of forward and backward. `extra_seconds`
    is predicted; `lower_bound_seconds` is what any schedule under the budget must take extra, at
    the least, and `status` what the solver knows. `floor_bytes` is the smallest budget that can
    be met, where `floor` was asked for it. `notes` say what the plan can't see.
    `timeline_bytes` and `baseline_timeline_bytes` are the memory while each step of the schedule
    runs, `boundary` and `baseline_boundary` the steps at which backward begins.
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
    timeline_bytes: tuple[int, ...]
    baseline_timeline_bytes: tuple[int, ...]
    boundary: int
    baseline_boundary: int
    origin: str = Origin.SEARCHED
    executor: str = "eager"
    shapes: tuple[PlannedShape, ...] = ()

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(asdict(self))

    def plot(self, path: str | Path) -> None:
        """Save the memory timeline before and after, with the budget as a line (.png, .svg...)."""
        timelines = (
            Timeline("baseline", self.baseline_timeline_bytes, self.baseline_boundary),
            Timeline("planned", self.timeline_bytes, self.boundary),
        )
        plot_timelines(timelines, self.budget_bytes, Path(path))

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        yield _render(self)

    def __str__(self) -> str:
        text = io.StringIO()
        Console(width=120, file=text).print(self)
        return text.getvalue()


def explain(optimized: object, *, graph: int = -1) -> Report:
    """The report on what `optimize` compiled: the newest graph, or another by its index.

    There is one graph for each input shape (and training flag); the report lists them all. Raises
    `OptionError` where nothing has been compiled yet, or for a graph that is not there.
    """
    compiled = _compiled_graph(optimized, graph)
    return report_on(compiled, compiled_of(optimized).backend.history.graphs)


def floor(optimized: object, *, graph: int = -1) -> int:
    """The smallest budget, in bytes, that can be met: what `BudgetInfeasible` names too.

    The first call searches for some seconds; it depends on sizes alone, not on measured times.
    `graph` and errors as `explain`.
    """
    return _compiled_graph(optimized, graph).plan.lowest.peak_bytes


def _compiled_graph(optimized: object, graph: int) -> CompiledGraph:
    graphs = compiled_of(optimized).backend.history.graphs
    if not graphs:
        raise OptionError(
            "nothing is planned: run a training step first (again, after torch._dynamo.reset()), "
            "or give optimize() example_inputs of a step that has gradients"
        )
    try:
        return graphs[graph]
    except IndexError:
        raise OptionError(f"there is no graph {graph}: {len(graphs)} are compiled") from None


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
        baseline_seconds=plan.problem.baseline_cost,
        extra_seconds=plan.extra_seconds,
        lower_bound_seconds=max(0.0, plan.solution.lower_bound - plan.problem.baseline_cost),
        status=str(plan.solution.status),
        solver=plan.solution.solver,
        floor_bytes=plan.lowest.peak_bytes if "lowest" in vars(plan) else None,
        solve_s=plan.solve_s,
        planning_s=compiled.planning_s,
        capture_s=compiled.capture_s,
        input_shapes=compiled.input_shapes,
        notes=_notes(compiled),
        rows=_rows(plan),
        timeline_bytes=plan.simulation.running_bytes,
        baseline_timeline_bytes=plan.baseline.running_bytes,
        boundary=boundary,
        baseline_boundary=plan.lowering.tangents_op,
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


def _rows(plan: Plan) -> tuple[Row, ...]:
    kept: Counter[Operation] = Counter()
    lowering = plan.lowering
    maker = {storage: o for o in plan.graph.operations for storage in o.makes}
    for value, nbytes in residuals(plan):
        storage = lowering.storage_of[value]
        if storage in maker:
            kept[maker[storage]] += nbytes
    runs = Counter(plan.schedule)
    grouped: dict[tuple[str, str], list[tuple[Operation, int]]] = {}
    layers: dict[tuple[str, str], set[str]] = {}
    for op, operation in enumerate(lowering.operation_of):
        if operation is not None:
            module = module_path(operation.nodes[0])
            key = (folded(module), source_line(operation.nodes[0]))
            grouped.setdefault(key, []).append((operation, op))
            layers.setdefault(key, set()).add(module)
    rows = [_row(plan, key, found, len(layers[key]), runs, kept) for key, found in grouped.items()]
    wanted = [row for row in rows if row.kept_bytes or row.runs]
    return tuple(sorted(wanted, key=lambda r: (-r.recomputed_seconds, -r.kept_bytes)))


def _row(
    plan: Plan,
    key: tuple[str, str],
    found: Sequence[tuple[Operation, int]],
    layers: int,
    runs: Counter[int],
    kept: Counter[Operation],
) -> Row:
    problem = plan.problem
    again = [(operation, op, runs[op] - 1) for operation, op in found if runs[op] > 1]
    return Row(
        module=key[0],
        source=key[1],
        layers=layers,
        operations=len(found),
        kept_bytes=sum(kept[operation] for operation, _ in found),
        recomputed=len(again),
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


def module_path(node: fx.Node) -> str:
    """The module that a node comes from, as in `named_modules()`; empty for none."""
    stack: dict[str, tuple[str, object]] = (
        node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack") or {}
    )
    path = ""
    for entry in stack.values():
        path = str(entry[0])
    path = re.sub(r"^L\['[^']*'\](\.__self__)?\.?", "", path)
    path = re.sub(r"\._modules\['([^']*)'\]|\[(\d+)\]", lambda m: f".{m[1] or m[2]}", path)
    return path


def folded(path: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def human_bytes(nbytes: float) -> str:
    """``12.3 MiB``"""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(nbytes) < 1024 or unit == "GiB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.2f} {unit}"
        nbytes /= 1024
    raise AssertionError


def _render(report: Report) -> RenderableType:
    summary = Table.grid(padding=(0, 2))
    summary.add_column(style="bold")
    summary.add_column(justify="right")
    summary.add_column()
    percent = 100 * report.extra_seconds / report.baseline_seconds if report.rows else 0.0
    bound = 100 * report.lower_bound_seconds / report.baseline_seconds
    for label, figure, remark in (
        ("budget", human_bytes(report.budget_bytes), report.budget_from),
        ("peak, nothing recomputed", human_bytes(report.baseline_peak_bytes), ""),
        (
            "peak, planned",
            human_bytes(report.planned_peak_bytes),
            f"{report.planned_peak_bytes / report.baseline_peak_bytes:.1%} of it",
        ),
        ("kept for backward", human_bytes(report.residual_bytes), ""),
        (
            "smallest budget",
            "" if report.floor_bytes is None else human_bytes(report.floor_bytes),
            "fxremat.floor(model) searches for it" if report.floor_bytes is None else "",
        ),
        (
            "extra time, predicted",
            f"{percent:.2f} %",
            f"{1e3 * report.extra_seconds:.2f} ms; no schedule takes less than {bound:.2f} %",
        ),
        ("executor", report.executor, EXECUTORS[report.executor]),
        ("solver", report.solver, f"{report.status}, {report.origin}, {report.solve_s:.2f} s"),
        (
            "compilation",
            f"{report.planning_s:.2f} s",
            f"added to {report.capture_s:.2f} s of tracing",
        ),
    ):
        summary.add_row(label, figure, remark)
    table = Table(title="Kept and recomputed, by line of code", title_justify="left")
    for heading, justify in (
        ("module", "left"),
        ("line", "left"),
        ("layers", "right"),
        ("kept", "right"),
        ("recomputed", "right"),
        ("ops", "right"),
        ("runs", "right"),
        ("GFLOP", "right"),
        ("ms", "right"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in report.rows:
        table.add_row(
            row.module,
            Text(row.source),
            str(row.layers),
            human_bytes(row.kept_bytes) if row.kept_bytes else "",
            human_bytes(row.recomputed_bytes) if row.runs else "",
            str(row.recomputed) if row.runs else "",
            str(row.runs) if row.runs else "",
            f"{row.recomputed_flops / 1e9:.3f}" if row.runs else "",
            f"{1e3 * row.recomputed_seconds:.3f}" if row.runs else "",
        )
    notes = [Text(f"Note: {note}") for note in report.notes]
    shapes = [Text(), _render_shapes(report.shapes)] if len(report.shapes) > 1 else []
    return Group(summary, Text(), table, *notes, *shapes)


def _render_shapes(shapes: Sequence[PlannedShape]) -> RenderableType:
    table = Table(title="Plans, by input shape", title_justify="left")
    for heading, justify in (
        ("graph", "right"),
        ("inputs that differ", "left"),
        ("nothing recomputed", "right"),
        ("planned peak", "right"),
        ("extra time", "right"),
        ("plan", "left"),
        ("calls", "right"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for shape in shapes:
        table.add_row(
            str(shape.graph),
            ", ".join("x".join(map(str, sizes)) or "number" for sizes in shape.input_shapes),
            human_bytes(shape.baseline_peak_bytes),
            human_bytes(shape.planned_peak_bytes),
            f"{100 * shape.extra_seconds / shape.baseline_seconds:.2f} %",
            shape.origin if shape.extra_seconds else "nothing to recompute",
            str(shape.calls),
        )
    return table
