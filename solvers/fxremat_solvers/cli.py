"""The command: ``python -m fxremat_solvers solve | pareto | check``, JSON on standard output.

Exit codes: 0 when there is an answer (also `infeasible`, which is one), 1 when `check` rejects a
schedule, 2 for files and arguments that can't be used; the reason is on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fxremat_solvers.errors import ScheduleError, SolverError
from fxremat_solvers.figures import (
    front_figures,
    read_document,
    replay_figures,
    solution_figures,
)
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Schedule
from fxremat_solvers.model.simulate import simulate
from fxremat_solvers.options import SolveOptions
from fxremat_solvers.pareto import FRONT_TIME_LIMIT_S, pareto
from fxremat_solvers.portfolio import PRESETS
from fxremat_solvers.solve import SOLVERS, checked_options
from fxremat_solvers.trace import solve_and_trace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "solve":
            return _solve(options)
        if options.command == "pareto":
            return _pareto(options)
        return _check(options)
    except (SolverError, OSError) as error:
        print(f"fxremat_solvers: {error}", file=sys.stderr)
        return 2


def add_options(command: argparse.ArgumentParser, limit_s: float) -> None:
    """The options of a search, for `options_of` to read."""
    command.add_argument("--solver", default=SolveOptions.solver, help=", ".join(SOLVERS))
    command.add_argument("--preset", default=SolveOptions.preset, help=", ".join(PRESETS))
    command.add_argument("--time-limit-s", type=float, default=limit_s, metavar="S")
    command.add_argument("--seed", type=int, default=SolveOptions.seed)


def options_of(arguments: argparse.Namespace) -> SolveOptions:
    """What was asked for; raises for what no solver can be called with."""
    names = ("solver", "preset", "time_limit_s", "seed")
    return checked_options(**{name: getattr(arguments, name) for name in names})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fxremat_solvers",
        description="Rematerialization: the cheapest schedule of a graph under a memory budget.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("solve", help="one budget: cost, peak and bound as a JSON object")
    one.add_argument("problem", type=Path, help="a fxremat-problem/2 file (or 1)")
    one.add_argument("--budget-bytes", type=int, required=True, metavar="N")
    one.add_argument("--trace", action="store_true", help="say what each step did, on stderr")
    one.add_argument("--out", type=Path, help="write the schedule (fxremat-schedule/1) here")

    front = commands.add_parser("pareto", help="the front from the floor to the baseline's peak")
    front.add_argument("problem", type=Path, help="a fxremat-problem/2 file (or 1)")
    front.add_argument("--points", type=int, default=12, help="budgets to solve (default 12)")

    add_options(one, SolveOptions.time_limit_s)
    add_options(front, FRONT_TIME_LIMIT_S)

    replay = commands.add_parser("check", help="replay a schedule: does it run, cost and peak")
    replay.add_argument("problem", type=Path, help="a fxremat-problem/2 file (or 1)")
    replay.add_argument("schedule", type=Path, help="a fxremat-schedule/1 file")
    replay.add_argument("--budget-bytes", type=int, metavar="N", help="reject a peak above this")
    return parser


def _solve(options: argparse.Namespace) -> int:
    problem = read_document(options.problem, RematProblem)
    if options.out is not None:
        _check_writable(options.out)  # before the work, not after it
    started = time.monotonic()
    trace = sys.stderr if options.trace else None
    solution = solve_and_trace(problem, options.budget_bytes, options_of(options), trace)
    if options.out is not None:
        options.out.write_text(solution.schedule.to_json() + "\n")
    answer = solution_figures(problem, solution)
    answer["seconds"] = round(time.monotonic() - started, 3)
    print(json.dumps(answer))
    return 0


def _pareto(options: argparse.Namespace) -> int:
    problem = read_document(options.problem, RematProblem)
    started = time.monotonic()
    front = pareto(problem, options_of(options), points=options.points)
    answer = front_figures(problem, front)
    answer["seconds"] = round(time.monotonic() - started, 3)
    print(json.dumps(answer))
    return 0


def _check(options: argparse.Namespace) -> int:
    problem = read_document(options.problem, RematProblem)
    schedule = read_document(options.schedule, Schedule)
    try:
        replay = simulate(problem, schedule)
    except ScheduleError as error:
        print(f"fxremat_solvers: {options.schedule}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(replay_figures(problem, replay)))
    if options.budget_bytes is not None and replay.peak_bytes > options.budget_bytes:
        over = replay.peak_bytes - options.budget_bytes
        print(f"fxremat_solvers: the peak is {over} bytes above the budget", file=sys.stderr)
        return 1
    return 0


def _check_writable(path: Path) -> None:
    """Raise the `OSError` of opening `path` for writing; what lies there stays."""
    existed = path.exists()
    path.open("a").close()
    if not existed:
        path.unlink()
