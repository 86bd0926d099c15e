"""Plan one lowered joint graph under a budget, and say what was decided."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import fx

from fxremat.annotate import Annotation
from fxremat.budget import Budget
from fxremat.capture import JointGraph
from fxremat.errors import BudgetInfeasible, OptionError
from fxremat.lower import Lowering
from fxremat.recomputability import Recomputability
from fxremat_solvers import (
    RematProblem,
    Schedule,
    Simulation,
    Solution,
    SolverError,
    Status,
    baseline,
    floor,
    simulate,
    solve,
)


@dataclass(frozen=True)
class Options:
    """How to plan: the budget, the solver, its time limit, seed and effort, the cost model."""

    budget: Budget
    solver: str = "auto"
    cost: str = "auto"
    time_limit_s: float = 20.0
    seed: int = 0
    effort: float = 0.2


@dataclass(frozen=True)
class Plan:
    """What was decided for one joint graph.

    `simulation` and `untouched` replay the schedule and the baseline order. Peaks are in bytes,
    costs in seconds; `solve_s` is what the solver took.
    """

    joint: JointGraph
    lowering: Lowering
    annotations: Mapping[fx.Node, Annotation]
    forms: Mapping[fx.Node, Recomputability]
    options: Options
    budget_bytes: int
    solution: Solution
    simulation: Simulation
    untouched: Simulation
    solve_s: float

    @property
    def problem(self) -> RematProblem:
        """What was solved, and is what runs."""
        return self.lowering.problem

    @property
    def peak_bytes(self) -> int:
        """The step memory under this plan."""
        return self.simulation.peak_bytes

    @property
    def baseline_peak_bytes(self) -> int:
        """The step memory with nothing recomputed."""
        return self.untouched.peak_bytes

    @cached_property
    def lowest(self) -> Solution:
        """The schedule that needs the least memory: searched for at the first use, then kept."""
        return floor(self.lowering.problem)

    @property
    def schedule(self) -> Schedule:
        """The ops of the problem in the order they run."""
        return self.solution.schedule

    @property
    def extra_seconds(self) -> float:
        """Predicted time of all recomputation, a step."""
        return self.solution.cost - self.problem.baseline_cost


def plan_step(
    joint: JointGraph,
    annotations: Mapping[fx.Node, Annotation],
    forms: Mapping[fx.Node, Recomputability],
    lowering: Lowering,
    untouched: Simulation,
    options: Options,
    largest_step_bytes: int = 0,
) -> Plan:
    """Plan a lowered joint graph under a budget; `untouched` is its replay as it stands.

    A budget that is a fraction is one of the largest step: `largest_step_bytes`, the step memory
    with nothing recomputed of those before, or this one's where that is more.

    Raises `BudgetInfeasible`, with the floor, where no schedule within the budget is found.
    """
    started = time.perf_counter()
    budget_bytes = options.budget.to_bytes(max(untouched.peak_bytes, largest_step_bytes))
    solution = _solve(lowering, untouched, budget_bytes, options)
    simulation = simulate(lowering.problem, solution.schedule)
    if solution.status is Status.INFEASIBLE:
        raise _infeasible(lowering, solution.schedule, simulation, budget_bytes)
    return Plan(
        joint=joint,
        lowering=lowering,
        annotations=annotations,
        forms=forms,
        options=options,
        budget_bytes=budget_bytes,
        solution=solution,
        simulation=simulation,
        untouched=untouched,
        solve_s=time.perf_counter() - started,
    )


def _solve(
    lowering: Lowering, untouched: Simulation, budget_bytes: int, options: Options
) -> Solution:
    if untouched.peak_bytes <= budget_bytes:
        return Solution(
            schedule=baseline(lowering.problem),
            cost=lowering.problem.baseline_cost,
            peak_bytes=untouched.peak_bytes,
            lower_bound=lowering.problem.baseline_cost,
            status=Status.OPTIMAL,
            solver="nothing to recompute",
        )
    try:
        return solve(
            lowering.problem,
            budget_bytes,
            solver=options.solver,
            time_limit_s=options.time_limit_s,
            seed=options.seed,
            effort=options.effort,
        )
    except SolverError as error:
        raise OptionError(f"solver {options.solver!r} can't plan this model: {error}") from error


def _infeasible(
    lowering: Lowering, schedule: Schedule, simulation: Simulation, budget_bytes: int
) -> BudgetInfeasible:
    problem = lowering.problem
    holders = live_at(problem, simulation, simulation.peak_step)
    described = tuple(
        (_describe(lowering, value), problem.values[value].nbytes) for value in holders
    )
    step = schedule.ops[simulation.peak_step]
    lines = [f"  {nbytes:>15,} B  {what}" for what, nbytes in described[:8]]
    workspace = simulation.runs[simulation.peak_step].workspace_bytes
    if workspace:
        lines.append(f"  {workspace:>15,} B  workspace of {problem.ops[step].name}")
    if len(described) > 8:
        lines.append(f"  ... and {len(described) - 8} smaller")
    floor_bytes = simulation.peak_bytes
    return BudgetInfeasible(
        f"the budget of {budget_bytes:,} bytes can't be met: the smallest that was reached is "
        f"{floor_bytes:,} bytes, while {problem.ops[step].name} runs. It holds there:\n"
        + "\n".join(lines)
        + f"\nGive a budget of at least {floor_bytes} bytes, a smaller batch, or less to return.",
        budget_bytes=budget_bytes,
        floor_bytes=floor_bytes,
        holders=described,
    )


def live_at(problem: RematProblem, simulation: Simulation, step: int) -> list[int]:
    """The values that hold memory while a step runs, largest first."""
    live: set[int] = set()
    for position in range(step + 1):
        live.update(simulation.makes[position])
        if position < step:
            live.difference_update(simulation.dies[position])
    held = [value for value in live if problem.values[value].nbytes]
    return sorted(held, key=lambda value: (-problem.values[value].nbytes, value))


def _describe(lowering: Lowering, value: int) -> str:
    name = lowering.problem.values[value].name
    for storage, index in lowering.value_of.items():
        if index == value:
            where = source_line(storage.maker)
            return f"{name}{f' ({where})' if where else ''}"
    return name


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
            return f"{path.rsplit('/', 1)[-1]}:{line}{', ' + code if code else ''}"
    return ""
