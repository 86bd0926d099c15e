"""Other batch sizes without another trace: every size and time is a line through two traces.

A step is traced at two batch sizes. Where both have the same ops on the same data flow, what a
value takes and what an op costs is a number plus a number an example, so that the problem of any
batch size is known, and a schedule of one is one of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fxremat.estimate.front import cheapest, fits
from fxremat.estimate.target import block_bytes
from fxremat_solvers import Op, RematProblem, Rerun, Schedule, Value, simulate

CAPS = (0.0, 0.1, 0.2, 0.35)
"""Extra times, over the step's, that the largest batch size is looked for at."""

LARGEST = 1 << 16
"""No larger batch size is looked for."""


@dataclass(frozen=True)
class BatchSize:
    """Whether a batch size fits, by which plan: bytes of its step, and of what else there is.

    `extra` is the plan's time over that of the step with nothing recomputed; None where it doesn't
    fit. `seconds` are those of the step with it, `all_bytes` is everything on the device.
    """

    batch: int
    fits: bool
    extra: float | None
    step_bytes: int
    all_bytes: int
    seconds: float


@dataclass(frozen=True)
class Line:
    """The problems of two batch sizes, and so of all others."""

    first: RematProblem
    first_batch: int
    second: RematProblem
    second_batch: int
    block: int

    def at(self, batch: int) -> RematProblem:
        """The problem of a batch size."""
        share = (batch - self.first_batch) / (self.second_batch - self.first_batch)

        def nbytes(a: int, b: int) -> int:
            return max(0, -(-round(a + (b - a) * share) // self.block) * self.block)

        def seconds(a: float, b: float) -> float:
            return max(0.0, a + (b - a) * share)

        def rerun(a: Rerun, b: Rerun) -> Rerun:
            return replace(
                a,
                cost=seconds(a.cost, b.cost),
                workspace_bytes=nbytes(a.workspace_bytes, b.workspace_bytes),
            )

        def op(a: Op, b: Op) -> Op:
            return replace(
                a,
                cost=seconds(a.cost, b.cost),
                workspace_bytes=nbytes(a.workspace_bytes, b.workspace_bytes),
                reruns=tuple(map(rerun, a.reruns, b.reruns)),
            )

        def value(a: Value, b: Value) -> Value:
            return replace(a, nbytes=nbytes(a.nbytes, b.nbytes))

        return replace(
            self.first,
            ops=tuple(map(op, self.first.ops, self.second.ops)),
            values=tuple(map(value, self.first.values, self.second.values)),
        )


def same_flow(first: RematProblem, second: RematProblem) -> bool:
    """Whether two problems differ in sizes and times alone."""

    def flow(problem: RematProblem) -> list[object]:
        ops = [
            (op.name, op.inputs, op.outputs, *((r.inputs, r.outputs) for r in op.reruns))
            for op in problem.ops
        ]
        return [ops, len(problem.values), problem.inputs, problem.outputs]

    return flow(first) == flow(second)


def line_of(
    first: RematProblem, first_batch: int, second: RematProblem, second_batch: int, kind: str
) -> Line | None:
    """What scales with the batch; None where the two problems aren't of the same ops."""
    if not same_flow(first, second):
        return None
    return Line(first, first_batch, second, second_batch, block_bytes(kind))


@dataclass(frozen=True)
class Room:
    """What a device has for a step of a batch size, and what stands beside it."""

    usable_bytes: int
    fixed_bytes: int  # parameters, buffers, the optimizer's state
    input_bytes: int  # an example
    dispatch_s: float = 0.0  # of Python, an op

    def beside(self, batch: int) -> int:
        """Bytes that are there when a step begins."""
        return self.fixed_bytes + self.input_bytes * batch

    def for_step(self, batch: int) -> int:
        """Bytes that the step may take."""
        return self.usable_bytes - self.beside(batch)


def plan_batch(
    problem: RematProblem, batch: int, room: Room, schedules: Sequence[Schedule]
) -> BatchSize:
    """Whether a batch size fits, and how dear it is. The first schedule is of the least memory."""
    lowest = simulate(problem, schedules[0])
    base = problem.baseline_cost
    if lowest.peak_bytes > room.for_step(batch):
        all_bytes = room.beside(batch) + lowest.peak_bytes
        return BatchSize(batch, False, None, lowest.peak_bytes, all_bytes, lowest.cost)
    found = cheapest(problem, room.for_step(batch), schedules)
    return BatchSize(
        batch=batch,
        fits=fits(found),
        extra=max(0.0, found.cost / base - 1) if base else 0.0,
        step_bytes=found.peak_bytes,
        all_bytes=room.beside(batch) + found.peak_bytes,
        seconds=max(found.cost, room.dispatch_s * len(found.schedule)),
    )


def largest_batches(
    plan: Callable[[int], BatchSize], caps: Iterable[float] = CAPS
) -> Mapping[float, BatchSize | None]:
    """For each cap the largest batch size that fits at no more extra time; None where none does.

    By bisection: a larger batch is taken to cost no less.
    """
    known: dict[int, BatchSize] = {}

    def within(batch: int, cap: float) -> bool:
        if batch not in known:
            known[batch] = plan(batch)
        each = known[batch]
        return each.fits and each.extra is not None and each.extra <= cap + 1e-9

    found: dict[float, BatchSize | None] = {}
    for cap in caps:
        low, high = 0, 1
        while high <= LARGEST and within(high, cap):
            low, high = high, 2 * high
        while high - low > 1 and low < LARGEST:
            middle = (low + high) // 2
            low, high = (middle, high) if within(middle, cap) else (low, middle)
        found[cap] = known[low] if low else None
    return found


def largest_of(
    sizes: Sequence[BatchSize], caps: Iterable[float] = CAPS
) -> Mapping[float, BatchSize | None]:
    """The same among sizes that were asked for."""
    return {
        cap: max(
            (s for s in sizes if s.fits and s.extra is not None and s.extra <= cap + 1e-9),
            key=lambda size: size.batch,
            default=None,
        )
        for cap in caps
    }
