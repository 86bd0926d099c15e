"""`fxremat solve`, `check` and `pareto`: problems and schedules in files, without a model."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from fxremat.cli.shared import add_json, answer, budget_of
from fxremat.pipeline.progress import said
from fxremat_solvers import (
    RematProblem,
    Schedule,
    ScheduleError,
    SolveOptions,
    Status,
    baseline,
    pareto,
    simulate,
)
from fxremat_solvers.cli import add_options, options_of
from fxremat_solvers.figures import (
    front_figures,
    read_document,
    replay_figures,
    solution_figures,
)
from fxremat_solvers.pareto import FRONT_TIME_LIMIT_S
from fxremat_solvers.trace import solve_and_trace


def add_parser(commands: Any) -> None:
    """Add the commands."""
    one: argparse.ArgumentParser = commands.add_parser(
        "solve", help="a schedule of a problem's file under a budget"
    )
    one.add_argument("problem", type=Path, help="what `fxremat export` writes")
    one.add_argument("--budget", required=True, help="6GiB, bytes, or a fraction such as 0.5")
    one.add_argument("--trace", action="store_true", help="say what each step did, on stderr")
    one.add_argument("--out", type=Path, help="write the schedule here")
    one.set_defaults(run=run_solve)
    front: argparse.ArgumentParser = commands.add_parser(
        "pareto", help="what budgets cost, from the smallest to all that is needed"
    )
    front.add_argument("problem", type=Path, help="what `fxremat export` writes")
    front.add_argument("--points", type=int, default=12, help="budgets to solve (default 12)")
    front.set_defaults(run=run_pareto)
    add_options(one, SolveOptions.time_limit_s)
    add_options(front, FRONT_TIME_LIMIT_S)
    add_json(one)
    add_json(front)
    replay: argparse.ArgumentParser = commands.add_parser(
        "check", help="replay a schedule: does it run, what does it cost and take"
    )
    replay.add_argument("problem", type=Path)
    replay.add_argument("schedule", type=Path)
    replay.add_argument("--budget", help="reject a peak above this")
    replay.set_defaults(run=run_check)
    add_json(replay)


def run_solve(args: argparse.Namespace) -> int:
    """Print one solution; 1 where nothing is within the budget."""
    problem = read_document(args.problem, RematProblem)
    budget_bytes = _budget_bytes(problem, args.budget)
    if args.out is not None:
        args.out.touch()  # Before the work, not after it.
    started = time.monotonic()
    chosen = options_of(args)
    with contextlib.nullcontext() if args.trace else said("searching for a schedule"):
        trace = sys.stderr if args.trace else None
        solution = solve_and_trace(problem, budget_bytes, chosen, trace)
    seconds = round(time.monotonic() - started, 3)
    if args.out is not None:
        args.out.write_text(solution.schedule.to_json() + "\n")
    figures = {
        "budget_bytes": budget_bytes,
        **solution_figures(problem, solution),
        "seconds": seconds,
    }
    found = solution.status is not Status.INFEASIBLE
    shown = Text(
        f"{solution.peak_bytes:,} B of a budget of {budget_bytes:,}, "
        f"{_share(problem, solution.cost)} more time, {figures['recomputed_ops']} runs again "
        f"({solution.solver}, {solution.status}; no schedule takes less than "
        f"{_share(problem, solution.lower_bound)})"
        if found
        else f"no schedule within {budget_bytes:,} B was found: the lowest takes "
        f"{solution.peak_bytes:,} B"
    )
    answer(args, figures, shown)
    return 0 if found else 1


def run_pareto(args: argparse.Namespace) -> int:
    """Print a front."""
    problem = read_document(args.problem, RematProblem)
    started = time.monotonic()
    with said(f"solving {args.points} budgets"):
        front = pareto(problem, options_of(args), points=args.points)
    seconds = round(time.monotonic() - started, 3)
    figures = {**front_figures(problem, front), "seconds": seconds}
    table = Table()
    for heading in ("peak, B", "more time", "at least", "runs again", "status", "solver"):
        table.add_column(heading, justify="left" if heading in ("status", "solver") else "right")
    for solution in front:
        table.add_row(
            f"{solution.peak_bytes:,}",
            _share(problem, solution.cost),
            _share(problem, solution.lower_bound),
            str(len(solution.schedule) - len(problem.ops)),
            str(solution.status),
            solution.solver,
        )
    answer(args, figures, table)
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Replay a schedule; 1 where it can't run or takes more than the budget."""
    problem = read_document(args.problem, RematProblem)
    schedule = read_document(args.schedule, Schedule)
    try:
        replay = simulate(problem, schedule)
    except ScheduleError as error:
        answer(args, {"runs": False, "why": str(error)}, Text(f"it can't run: {error}"))
        return 1
    figures: dict[str, Any] = {"runs": True, **replay_figures(problem, replay)}
    over = 0
    if args.budget is not None:
        over = max(0, replay.peak_bytes - _budget_bytes(problem, args.budget))
        figures["over_budget_bytes"] = over
    shown = (
        f"it runs: {replay.peak_bytes:,} B at step {replay.peak_step}, "
        f"{_share(problem, replay.cost)} more time, {figures['recomputed_ops']} runs again"
    )
    answer(args, figures, Text(shown + (f"; {over:,} B above the budget" if over else "")))
    return 1 if over else 0


def _budget_bytes(problem: RematProblem, text: str) -> int:
    return budget_of(text).to_bytes(simulate(problem, baseline(problem)).peak_bytes)


def _share(problem: RematProblem, cost: float) -> str:
    if not math.isfinite(cost):
        return "any"
    return f"{100 * max(0.0, cost / (problem.baseline_cost or 1.0) - 1):.2f} %"
