"""The oracle: replays a schedule and says what it costs and how much memory it needs.

Every solver, test, report and plot takes its figures from here. Liveness follows from the
schedule alone: a value lives from a computation to its last use before its next computation,
and problem outputs live from their last computation to the end; a lazy value that nobody reads in
that time takes nothing. An op's first occurrence is its first run, a later one its rerun.
O(size of the schedule).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fxremat_solvers.errors import ScheduleError
from fxremat_solvers.model.problem import Op, RematProblem, Rerun
from fxremat_solvers.model.schedule import Schedule


@dataclass(frozen=True)
class Simulation:
    """The replay of one schedule.

    `runs[t]` is what step t does: the op itself where it runs for the first time, else its rerun.
    `makes[t]` are the values that it allocates: its outputs without lazy ones that nobody reads.
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
    runs: tuple[Op | Rerun, ...]
    makes: tuple[tuple[int, ...], ...]


def check(problem: RematProblem, schedule: Schedule | Sequence[int]) -> None:
    """Raise `ScheduleError` unless the schedule can be executed.

    Every op runs at least once, and exactly once where it has no rerun; every input of a run was
    made by an earlier step or is an input of the problem. Raises `SeveralRerunsError` where the
    problem leaves open how an op reruns.
    """
    _runs(problem, tuple(schedule))


def _runs(problem: RematProblem, steps: Sequence[int]) -> list[Op | Rerun]:
    """How each step runs: an op's first occurrence is its first run. `ScheduleError` as `check`."""
    ops, reruns = problem.ops, problem.reruns
    counts = [0] * len(ops)
    exists = bytearray(len(problem.values))
    for value in problem.inputs:
        exists[value] = 1
    runs: list[Op | Rerun] = []
    for step, index in enumerate(steps):
        if not 0 <= index < len(ops):
            raise ScheduleError(f"step {step} names op {index}, which the problem does not have")
        op = run = ops[index]
        if counts[index]:
            run = reruns[index]
            if not op.reruns:
                raise ScheduleError(
                    f"step {step} recomputes op {index} ({op.name}), which is not recomputable"
                )
        counts[index] += 1
        for value in run.inputs:
            if not exists[value]:
                raise ScheduleError(
                    f"step {step} (op {index}, {op.name}) reads value {value} "
                    f"({problem.values[value].name}) before any step makes it"
                )
        for value in run.outputs:
            exists[value] = 1
        runs.append(run)
    for index, count in enumerate(counts):
        if not count:
            raise ScheduleError(f"op {index} ({ops[index].name}) never runs")
    return runs


def simulate(problem: RematProblem, schedule: Schedule | Sequence[int]) -> Simulation:
    """Replay `schedule` and return its cost and memory; errors as `check`."""
    runs = _runs(problem, tuple(schedule))
    nbytes = [value.nbytes for value in problem.values]
    lazy = bytearray(value.lazy for value in problem.values)
    # Backwards: the first time a value is met is its last use before its next computation.
    needed = bytearray(len(nbytes))
    uncounted = bytearray(len(nbytes))
    for value in problem.outputs:
        needed[value] = 1
    for value in problem.inputs:
        uncounted[value] = 1
    dies: list[tuple[int, ...]] = [()] * len(runs)
    makes: list[tuple[int, ...]] = [run.outputs for run in runs]
    for step in range(len(runs) - 1, -1, -1):
        run = runs[step]
        dead: list[int] = []
        for value in run.outputs:
            if not needed[value]:
                if lazy[value]:
                    makes[step] = tuple(made for made in makes[step] if made != value)
                else:
                    dead.append(value)
            needed[value] = 0
        for value in run.inputs:
            if not needed[value] and not uncounted[value]:
                needed[value] = 1
                dead.append(value)
        dies[step] = tuple(dead)
    live = 0
    running: list[int] = []
    resident: list[int] = []
    for step, run in enumerate(runs):
        live += sum(nbytes[value] for value in makes[step])
        running.append(live + run.workspace_bytes)
        live -= sum(nbytes[value] for value in dies[step])
        resident.append(live)
    peak = max(running, default=0)
    return Simulation(
        cost=math.fsum(run.cost for run in runs),
        peak_bytes=peak,
        peak_step=running.index(peak) if running else -1,
        running_bytes=tuple(running),
        resident_bytes=tuple(resident),
        dies=tuple(dies),
        runs=tuple(runs),
        makes=tuple(makes),
    )


def baseline(problem: RematProblem) -> Schedule:
    """Every op once, in the problem's order: nothing recomputed."""
    return Schedule(tuple(range(len(problem.ops))))


def live_after(problem: RematProblem, simulation: Simulation, step: int) -> set[int]:
    """The values that hold memory after a step has ended; those of no bytes hold none."""
    live: set[int] = set()
    for makes, dies in zip(simulation.makes[: step + 1], simulation.dies, strict=False):
        live.update(makes)
        live.difference_update(dies)
    return {value for value in live if problem.values[value].nbytes}


def live_at(problem: RematProblem, simulation: Simulation, step: int) -> list[int]:
    """The values that hold memory while a step runs, largest first."""
    ends = (v for v in simulation.dies[step] if problem.values[v].nbytes)
    live = live_after(problem, simulation, step).union(ends)
    return sorted(live, key=lambda value: (-problem.values[value].nbytes, value))
