"""The oracle: replays a schedule and says what it costs and how much memory it needs.

Every solver, test, report and plot takes its figures from here. Liveness follows from the
schedule alone: a value lives from a computation to its last use before its next computation,
and problem outputs live from their last computation to the end. O(size of the schedule).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fxremat_solvers.errors import ScheduleError
from fxremat_solvers.problem import RematProblem
from fxremat_solvers.schedule import Schedule


@dataclass(frozen=True)
class Simulation:
    """The replay of one schedule.

    `running_bytes[t]` is the memory in use while step t runs (inputs, outputs and workspace);
    `resident_bytes[t]` what is still live after it. `peak_bytes` is the largest running figure,
    reached first at step `peak_step`. `dies[t]` are the values freed after step t.
    """

    cost: float
    peak_bytes: int
    peak_step: int
    running_bytes: tuple[int, ...]
    resident_bytes: tuple[int, ...]
    dies: tuple[tuple[int, ...], ...]


def check(problem: RematProblem, schedule: Schedule | Sequence[int]) -> None:
    """Raise `ScheduleError` unless the schedule can be executed.

    Every op runs at least once, and exactly once where it is not recomputable; every input of an
    op was made by an earlier step or is an input of the problem.
    """
    runs = [0] * len(problem.ops)
    exists = bytearray(len(problem.values))
    for value in problem.inputs:
        exists[value] = 1
    for step, index in enumerate(schedule):
        if not 0 <= index < len(problem.ops):
            raise ScheduleError(f"step {step} names op {index}, which the problem does not have")
        op = problem.ops[index]
        if runs[index] and not op.recomputable:
            raise ScheduleError(
                f"step {step} recomputes op {index} ({op.name}), which is not recomputable"
            )
        runs[index] += 1
        for value in op.inputs:
            if not exists[value]:
                raise ScheduleError(
                    f"step {step} (op {index}, {op.name}) reads value {value} "
                    f"({problem.values[value].name}) before any step makes it"
                )
        for value in op.outputs:
            exists[value] = 1
    for index, count in enumerate(runs):
        if not count:
            raise ScheduleError(f"op {index} ({problem.ops[index].name}) never runs")


def simulate(problem: RematProblem, schedule: Schedule | Sequence[int]) -> Simulation:
    """Replay `schedule` and return its cost and memory; `ScheduleError` if it can't run."""
    check(problem, schedule)
    steps = tuple(schedule)
    nbytes = [value.nbytes for value in problem.values]
    # Backwards: the first time a value is met is its last use before its next computation.
    needed = bytearray(len(nbytes))
    uncounted = bytearray(len(nbytes))
    for value in problem.outputs:
        needed[value] = 1
    for value in problem.inputs:
        uncounted[value] = 1
    dies: list[tuple[int, ...]] = [()] * len(steps)
    for step in range(len(steps) - 1, -1, -1):
        op = problem.ops[steps[step]]
        dead: list[int] = []
        for value in op.outputs:
            if not needed[value]:
                dead.append(value)
            needed[value] = 0
        for value in op.inputs:
            if not needed[value] and not uncounted[value]:
                needed[value] = 1
                dead.append(value)
        dies[step] = tuple(dead)
    live = 0
    running: list[int] = []
    resident: list[int] = []
    for step, index in enumerate(steps):
        op = problem.ops[index]
        live += sum(nbytes[value] for value in op.outputs)
        running.append(live + op.workspace_bytes)
        live -= sum(nbytes[value] for value in dies[step])
        resident.append(live)
    peak = max(running, default=0)
    return Simulation(
        cost=math.fsum(problem.ops[index].cost for index in steps),
        peak_bytes=peak,
        peak_step=running.index(peak) if running else -1,
        running_bytes=tuple(running),
        resident_bytes=tuple(resident),
        dies=tuple(dies),
    )


def baseline(problem: RematProblem) -> Schedule:
    """Every op once, in the problem's order: nothing recomputed."""
    return Schedule(tuple(range(len(problem.ops))))
