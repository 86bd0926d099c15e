"""One order of a graph's operations, step by step: what runs, what it takes, what is alive."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fxremat.lower.lowering import Lowering
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
    lowering, plain = plan.lowering, plan.lowering.plain
    as_it_is = Schedule(tuple(range(len(plain.problem.ops))))
    values = _held(lowering)
    # Where some are made again as asked, the two orders have different values.
    others = 0 if plain is lowering else len(values)
    return Timelines(
        values=(*values, *(_held(plain) if others else ())),
        baseline=_order("baseline", plain, as_it_is, plan.baseline, others),
        planned=_order("planned", lowering, plan.schedule, plan.simulation),
    )


def _held(lowering: Lowering) -> tuple[Held, ...]:
    return tuple(
        Held(value.name, "" if storage is None else source_line(storage.maker), value.nbytes)
        for value, storage in zip(lowering.problem.values, lowering.storage_of, strict=True)
    )


def _order(
    label: str, lowering: Lowering, schedule: Schedule, replay: Simulation, values_from: int = 0
) -> Order:
    problem, first = lowering.problem, set(lowering.again)
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
        spans=tuple(
            replace(span, value=values_from + span.value) for span in _spans(problem, replay)
        ),
        boundary=schedule.ops.index(lowering.tangents_op),
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
