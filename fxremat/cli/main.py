"""The command `fxremat`: estimate, explain, solve, check, pareto, export, devices, bench, cache.

Exit codes: 0 for an answer; 1 where the answer is no (a budget that can't be met, a schedule that
is rejected, a model that can't be planned); 2 where what was given can't be used. An error is one
line on standard error, and with ``--json`` an object on standard output, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from fxremat.cli import caches, models, problems
from fxremat.errors import BudgetError, BudgetInfeasible, FxrematError, OptionError
from fxremat.estimate import command
from fxremat_solvers import SolverError

DONE, NO, UNUSABLE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    # Modules of the folder that the command is run in, as under python -c.
    if "" not in sys.path:
        sys.path.insert(0, "")
    args = _parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except (FxrematError, SolverError, OSError) as error:
        return _failed(error, as_json=bool(getattr(args, "json", False)))
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fxremat",
        description="Train PyTorch models within a memory budget, gradients bit for bit.",
        epilog="exit codes: 0 an answer, 1 the answer is no, 2 what was given can't be used",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    # Each sets `run`: what takes the parsed arguments and returns an exit code.
    for module in (command, models, problems, caches):
        module.add_parser(commands)
    return parser


def _failed(error: Exception, *, as_json: bool) -> int:
    message = " ".join(str(error).split("\n", 1)[0].split())
    if isinstance(error, BudgetInfeasible):
        message = message.removesuffix(" It holds there:")
    if as_json:
        document: dict[str, object] = {"error": type(error).__name__, "message": message}
        if isinstance(error, BudgetInfeasible):
            document |= {"budget_bytes": error.budget_bytes, "floor_bytes": error.floor_bytes}
        print(json.dumps(document))
    print(f"fxremat: {message}", file=sys.stderr)
    unusable = (OptionError, BudgetError, SolverError, OSError)
    return UNUSABLE if isinstance(error, unusable) else NO
