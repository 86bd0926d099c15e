"""What each step of a search did, as commands show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Solution
from fxremat_solvers.options import SolveOptions
from fxremat_solvers.portfolio import portfolio
from fxremat_solvers.search.state import Report
from fxremat_solvers.solve import SOLVERS, solve


def solve_and_trace(
    problem: RematProblem,
    budget_bytes: int,
    options: SolveOptions,
    trace: TextIO | None,
) -> Solution:
    """A solution; what each step of the search did is written to `trace`, where that is given."""
    if trace is not None and SOLVERS[options.solver].has_presets and budget_bytes > 0:
        traced = portfolio(problem, budget_bytes, options)
        print(trace_table(traced.reports, problem.baseline_cost), file=trace)
        return traced.solution
    return solve(problem, budget_bytes, options)


def trace_table(reports: Sequence[Report], baseline_cost: float) -> str:
    """A line a step: its seconds, and cost and bound before and after, in per cent above the
    baseline's cost."""

    def percent(pair: tuple[float, float]) -> str:
        shares = (
            100 * (max(1.0, cost / baseline_cost) - 1) if baseline_cost else 0.0 for cost in pair
        )
        return " -> ".join(f"{share:7.3f}" for share in shares)

    width = max([len(report.step) for report in reports], default=4)
    lines = [f"{'step':{width}}  seconds  {'cost, %':^18}  {'bound, %':^18}  peak, bytes"]
    for each in reports:
        peaks = " -> ".join(map(str, each.peak_bytes))
        lines.append(
            f"{each.step:{width}}  {each.seconds:7.3f}  {percent(each.cost)}  {percent(each.bound)}"
            f"  {peaks}"
        )
    return "\n".join(lines)
