"""The command `fxremat`: estimate, explain, solve, check, pareto, export, devices, bench, cache.

Exit codes: 0 for an answer; 1 where the answer is no (a budget that can't be met, a schedule that
is rejected, a model that can't be planned); 2 where what was given can't be used; 3 where the
model's own code fails, with its traceback. An error is one line on standard error, and with
``--json`` an object on standard output, too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence

from fxremat.cli import caches, models, problems
from fxremat.errors import BudgetError, BudgetInfeasible, FxrematError, OptionError
from fxremat.estimate import command
from fxremat_solvers import SolverError
from fxremat_solvers.version import __version__

DONE, NO, UNUSABLE, BROKEN = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    # Modules of the folder that the command is run in, as under python -c.
    if "" not in sys.path:
        sys.path.insert(0, "")
    args = _parser().parse_args(arguments)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader left (`fxremat devices | head`): what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _failed(error, as_json=bool(getattr(args, "json", False)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fxremat",
        description="Train PyTorch models within a memory budget, gradients bit for bit.",
        epilog="exit codes: 0 an answer, 1 the answer is no, 2 what was given can't be used, "
        "3 the model's own code fails",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    # Each sets `run`: what takes the parsed arguments and returns an exit code.
    for module in (command, models, problems, caches):
        module.add_parser(commands)
    return parser


def _failed(error: Exception, *, as_json: bool) -> int:
    message = _one_line(error)
    if as_json:
        document: dict[str, object] = {"error": type(error).__name__, "message": message}
        if isinstance(error, BudgetInfeasible):
            document |= {"budget_bytes": error.budget_bytes, "floor_bytes": error.floor_bytes}
        print(json.dumps(document))
    if not isinstance(error, (FxrematError, SolverError, OSError)):
        # The model's own code, as a rule: where it failed is what one wants to see.
        traceback.print_exception(error)
        return BROKEN
    print(f"fxremat: {message}", file=sys.stderr)
    unusable = (OptionError, BudgetError, SolverError, OSError)
    return UNUSABLE if isinstance(error, unusable) else NO


def _one_line(error: Exception) -> str:
    """An error's first line; where that announces what follows, the head of it and the place."""
    first, *rest = [line for line in map(str.strip, str(error).splitlines()) if line] or [""]
    if isinstance(error, BudgetInfeasible):
        return first.removesuffix(" It holds there:")
    if not first.endswith(":") or not rest:
        return first
    places = [line for line in rest if line.startswith('File "')]
    if not places:
        return f"{first} {rest[0]}"
    path, line = places[-1].split('"')[1], places[-1].split("line ")[1].split(",")[0]
    return f"{first} {rest[0]} ({os.path.basename(path)}:{line})"
