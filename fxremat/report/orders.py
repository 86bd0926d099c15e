"""One order of a graph's operations, step by step: what runs, what it takes, what is alive."""

from __future__ import annotations

from dataclasses import dataclass

from fxremat.plan.plan import Plan, source_line
from fxremat_solvers import RematProblem, Schedule, Simulation


@dataclass(frozen=True)
class Span:
    """A value in memory from step `begin` to step `end`, both included."""

    value: int
    begin: int
    end: int


@dataclass(frozen=True)
class Order:
    """What runs at each step, `again` where it ran before, and the memory in use meanwhile.

    `workspace_bytes` is the part of it that belongs to no value; backward begins at `boundary`.
    """

    label: str
    ops: tuple[str, ...]
    again: tuple[bool, ...]
    seconds: tuple[float, ...]
    nbytes: tuple[int, ...]
    workspace_bytes: tuple[int, ...]
    spans: tuple[Span, ...]
    boundary: int


@dataclass(frozen=True)
class Held:
    """A value that orders hold: its name, the line that makes it, its bytes."""

    name: str
    source: str
    nbytes: int


@dataclass(frozen=True)
class Timelines:
    """The order with nothing recomputed and the planned one, over the same values."""

    values: tuple[Held, ...]
    baseline: Order
    planned: Order


def timelines_of(plan: Plan) -> Timelines:
    """Both orders of a plan, in plain figures that hold no graph."""
    problem, lowering = plan.problem, plan.lowering
    values = tuple(
        Held(value.name, "" if storage is None else source_line(storage.maker), value.nbytes)
        for value, storage in zip(problem.values, lowering.storage_of, strict=True)
    )
    as_it_is = Schedule(tuple(range(len(problem.ops))))
    return Timelines(
        values=values,
        baseline=_order("baseline", problem, as_it_is, plan.baseline, lowering.tangents_op),
        planned=_order("planned", problem, plan.schedule, plan.simulation, lowering.tangents_op),
    )


def _order(
    label: str, problem: RematProblem, schedule: Schedule, replay: Simulation, tangents_op: int
) -> Order:
    first: set[int] = set()
    again: list[bool] = []
    for op in schedule:
        again.append(op in first)
        first.add(op)
    return Order(
        label=label,
        ops=tuple(problem.ops[op].name for op in schedule),
        again=tuple(again),
        seconds=tuple(run.cost for run in replay.runs),
        nbytes=replay.running_bytes,
        workspace_bytes=tuple(run.workspace_bytes for run in replay.runs),
        spans=_spans(problem, replay),
        boundary=schedule.ops.index(tangents_op),
    )


def _spans(problem: RematProblem, replay: Simulation) -> tuple[Span, ...]:
    begins: dict[int, int] = {}
    spans: list[Span] = []
    for step, (makes, dies) in enumerate(zip(replay.makes, replay.dies, strict=True)):
        for value in makes:
            begins[value] = step
        spans += [Span(value, begins.pop(value), step) for value in dies]
    last = len(replay.runs) - 1
    spans += [Span(value, begin, last) for value, begin in begins.items()]
    return tuple(span for span in spans if problem.values[span.value].nbytes)
