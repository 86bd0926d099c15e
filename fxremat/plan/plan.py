"""Plan one lowered joint graph under a budget, and say what was decided."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property

from torch import fx

from fxremat.errors import BudgetInfeasible, OptionError
from fxremat.graph import JointGraph
from fxremat.lower.lowering import Lowering, Program
from fxremat.plan.options import Options
from fxremat.policy import KEPT
from fxremat_solvers import (
    RematProblem,
    Schedule,
    Simulation,
    Solution,
    SolverError,
    Status,
    baseline,
    floor,
    live_at,
    quick,
    solve,
)
from fxremat_solvers.search.parallel import at_most, processors

# Frames of this package in what Dynamo traced: the functions that it puts around a model's.
_OUR_FILES = os.path.dirname(os.path.dirname(__file__)) + os.sep

# What is spared by writing in place, as a part of the budget, that another search is made for, and
# how many of them. Each that needs too much is followed by one with half as much more to spend.
_WORTH_SPENDING = 0.005
_SEARCHES_MORE = 2


@dataclass(frozen=True)
class Plan:
    """What was decided for one joint graph.

    `simulation` and `baseline` replay the schedule and the order with nothing recomputed. Peaks
    are in bytes, costs in seconds; `solve_s` is what the solver took.
    """

    lowering: Lowering
    baseline: Simulation
    options: Options
    budget_bytes: int
    solution: Solution
    simulation: Simulation
    solve_s: float

    @property
    def graph(self) -> JointGraph:
        """What was planned."""
        return self.lowering.graph

    @property
    def problem(self) -> RematProblem:
        """What was solved, and is what runs."""
        return self.lowering.problem

    @property
    def schedule(self) -> Schedule:
        """The ops of the problem in the order they run."""
        return self.solution.schedule

    @property
    def program(self) -> Program:
        """The schedule in terms of the graph."""
        return self.lowering.invert(self.schedule)

    @property
    def peak_bytes(self) -> int:
        """The step memory under this plan."""
        return self.simulation.peak_bytes

    @property
    def baseline_peak_bytes(self) -> int:
        """The step memory with nothing recomputed."""
        return self.baseline.peak_bytes

    @property
    def baseline_seconds(self) -> float:
        """Predicted time of a step with nothing recomputed."""
        return self.lowering.plain.problem.baseline_cost

    @property
    def extra_seconds(self) -> float:
        """Predicted time of all recomputation, a step."""
        return self.solution.cost - self.baseline_seconds

    @cached_property
    def lowest(self) -> Solution:
        """The schedule that needs the least memory: searched for at the first use, then kept.

        Its peak is that of its replay, which counts what is written in place once.
        """
        found = floor(self.problem)
        return replace(found, peak_bytes=self.lowering.replay(found.schedule).peak_bytes)

    def with_schedule(self, schedule: Schedule) -> Plan:
        """This plan by another schedule. Raises `ScheduleError` where it can't be executed."""
        simulation = self.lowering.replay(schedule)
        no_worse = simulation.cost <= self.solution.cost
        solution = replace(
            self.solution,
            schedule=schedule,
            cost=simulation.cost,
            peak_bytes=simulation.peak_bytes,
            status=self.solution.status if no_worse else Status.FEASIBLE,
        )
        plan = replace(self, solution=solution, simulation=simulation)
        if "lowest" in vars(self):
            vars(plan)["lowest"] = self.lowest
        return plan

    def for_lowering(self, lowering: Lowering) -> Plan:
        """This plan for another graph that was lowered to an equal problem."""
        plan = replace(self, lowering=lowering)
        if "lowest" in vars(self):
            vars(plan)["lowest"] = self.lowest
        return plan


Search = Callable[[RematProblem, int, Options], Solution]
"""What finds a schedule for a problem and a budget in bytes."""


def search_schedule(problem: RematProblem, budget_bytes: int, options: Options) -> Solution:
    """The schedule that the options' solver finds."""
    with search_threads(options):
        return solve(
            problem,
            budget_bytes,
            solver=options.solver,
            time_limit_s=options.time_limit_s,
            seed=options.seed,
            preset=options.preset,
        )


def search_threads(options: Options) -> AbstractContextManager[None]:
    """Around a search: those that the options name, else this rank's share of the processors."""
    if options.threads is not None:
        return at_most(options.threads)
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return at_most(max(1, processors() // (int(ranks) if ranks.isdecimal() else 1)))


def replay_schedules(schedules: Sequence[Schedule]) -> Search:
    """A search that takes the cheapest that fits of these and greedy's, in milliseconds."""

    def search(problem: RematProblem, budget_bytes: int, _options: Options) -> Solution:
        return quick(problem, budget_bytes, schedules)

    return search


def plan_step(
    lowering: Lowering,
    baseline: Simulation,
    options: Options,
    largest_step_bytes: int = 0,
    search: Search = search_schedule,
) -> Plan:
    """Plan a lowered joint graph under a budget; `baseline` is its replay as it stands.

    A budget that is a fraction is one of the largest step: `largest_step_bytes`, the step memory
    with nothing recomputed of those before, or this one's where that is more.

    Raises `BudgetInfeasible`, with the floor, where no schedule within the budget is found.
    """
    started = time.perf_counter()
    budget_bytes = options.budget.to_bytes(max(baseline.peak_bytes, largest_step_bytes))
    solution, simulation = _solve(lowering, baseline, budget_bytes, options, search)
    if solution.status is Status.INFEASIBLE:
        raise _infeasible(lowering, solution.schedule, simulation, budget_bytes)
    return Plan(
        lowering=lowering,
        baseline=baseline,
        options=options,
        budget_bytes=budget_bytes,
        solution=solution,
        simulation=simulation,
        solve_s=time.perf_counter() - started,
    )


def follow(lowering: Lowering, baseline: Simulation, options: Options, schedule: Schedule) -> Plan:
    """The plan that is a given schedule, under a budget of what it needs.

    Raises `ScheduleError` where the schedule can't be executed.
    """
    simulation = lowering.replay(schedule)
    return Plan(
        lowering=lowering,
        baseline=baseline,
        options=options,
        budget_bytes=max(1, simulation.peak_bytes),
        solution=Solution(
            schedule=schedule,
            cost=simulation.cost,
            peak_bytes=simulation.peak_bytes,
            lower_bound=lowering.problem.baseline_cost,
            status=Status.FEASIBLE,
            solver="given",
        ),
        simulation=simulation,
        solve_s=0.0,
    )


def _solve(
    lowering: Lowering,
    replay: Simulation,
    budget_bytes: int,
    options: Options,
    search: Search,
) -> tuple[Solution, Simulation]:
    """What the solver finds, and its replay; `replay` is that of the baseline.

    Solvers know nothing of what is written in place. Where a schedule needs less by that, one is
    asked for again, with as much more to spend.
    """
    problem = lowering.problem
    if lowering.again:
        replay = lowering.replay(baseline(problem))
    if replay.peak_bytes <= budget_bytes:
        as_it_is = Solution(
            schedule=baseline(problem),
            cost=problem.baseline_cost,
            peak_bytes=replay.peak_bytes,
            lower_bound=problem.baseline_cost,
            status=Status.OPTIMAL,
            solver=f"nothing {'more ' if lowering.again else ''}to recompute",
        )
        return as_it_is, replay
    try:
        solution = search(problem, budget_bytes, options)
    except SolverError as error:
        raise OptionError(f"solver {options.solver!r} can't plan this model: {error}") from error
    except Exception as error:
        return _instead(lowering, budget_bytes, options, f"{type(error).__name__}: {error}")
    try:
        simulation = lowering.replay(solution.schedule)
    except SolverError as error:
        return _instead(lowering, budget_bytes, options, f"a schedule that can't run: {error}")
    if simulation.peak_bytes > budget_bytes and solution.status is not Status.INFEASIBLE:
        what = f"a schedule that needs {simulation.peak_bytes:,} B"
        return _instead(lowering, budget_bytes, options, what)
    spared = solution.peak_bytes - simulation.peak_bytes
    for _ in range(_SEARCHES_MORE):
        if spared <= _WORTH_SPENDING * budget_bytes:
            break
        try:
            again = search(problem, budget_bytes + spared, options)
            simulation_again = lowering.replay(again.schedule)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            warnings.warn(f"a search for a cheaper plan failed ({what})", stacklevel=2)
            break
        if simulation_again.peak_bytes <= budget_bytes:
            if again.cost < solution.cost:
                solution, simulation = again, simulation_again
            break
        spared //= 2
    if solution.status is Status.INFEASIBLE and simulation.peak_bytes <= budget_bytes:
        solution = replace(solution, status=Status.FEASIBLE)
    return solution, simulation


def _instead(
    lowering: Lowering, budget_bytes: int, options: Options, what: str
) -> tuple[Solution, Simulation]:
    """Greedy's schedule and its replay, where a solver failed or burst its budget."""
    warnings.warn(
        f"solver {options.solver!r} failed on this model ({what}): planned by 'greedy' instead. "
        "This is a defect of fxremat, please report it with the model",
        stacklevel=2,
    )
    solution = solve(lowering.problem, budget_bytes, solver="greedy")
    return solution, lowering.replay(solution.schedule)


def _infeasible(
    lowering: Lowering, schedule: Schedule, simulation: Simulation, budget_bytes: int
) -> BudgetInfeasible:
    problem = lowering.problem
    described = holders_at_peak(lowering, simulation)
    step = schedule.ops[simulation.peak_step]
    lines = [f"  {nbytes:>15,} B  {what}" for what, nbytes in described[:8]]
    workspace = simulation.runs[simulation.peak_step].workspace_bytes
    if workspace:
        lines.append(f"  {workspace:>15,} B  workspace of {problem.ops[step].name}")
    if len(described) > 8:
        lines.append(f"  ... and {len(described) - 8} smaller")
    floor_bytes = simulation.peak_bytes
    kept = sum(o.mode.reason.startswith(KEPT) for o in lowering.graph.operations)
    return BudgetInfeasible(
        f"the budget of {budget_bytes:,} bytes can't be met: the smallest that was reached is "
        f"{floor_bytes:,} bytes, while {problem.ops[step].name} runs. It holds there:\n"
        + "\n".join(lines)
        + f"\nGive a budget of at least {floor_bytes} bytes, a smaller batch, or less to return."
        + (f" {kept} operations are kept as the policy asks." if kept else ""),
        budget_bytes=budget_bytes,
        floor_bytes=floor_bytes,
        holders=described,
    )


# AOTAutograd calls them tangents: what backward is given, one for each result of the step.
GIVEN_GRADIENTS = "gradients of what the step returns"


def holders_at_peak(lowering: Lowering, simulation: Simulation) -> tuple[tuple[str, int], ...]:
    """The values that hold memory at a replay's peak, largest first: (description, bytes)."""
    problem = lowering.problem
    holders = live_at(problem, simulation, simulation.peak_step)
    return tuple((_describe(lowering, value), problem.values[value].nbytes) for value in holders)


def _describe(lowering: Lowering, value: int) -> str:
    name, storage = lowering.problem.values[value].name, lowering.storage_of[value]
    where = source_line(storage.maker) if storage is not None else ""
    if not where and name.startswith("tangents_"):
        where = GIVEN_GRADIENTS
    return f"{name}{f' ({where})' if where else ''}"


def source_line(node: fx.Node) -> str:
    """The user's line of code that a node comes from: ``file:line, code``; empty if unknown."""
    trace = node.meta.get("stack_trace")
    if not isinstance(trace, str):
        return ""
    lines = [line.strip() for line in trace.strip().splitlines() if line.strip()]
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith("File "):
            code = lines[index + 1] if index + 1 < len(lines) else ""
            path, line = lines[index].split('"')[1], lines[index].split("line ")[1].split(",")[0]
            if path.startswith(_OUR_FILES):
                continue
            return f"{path.rsplit('/', 1)[-1]}:{line}{', ' + code if code else ''}"
    return ""
