"""The command: `python -m fxremat export module:factory --out problem.json`, and others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fxremat.annotate.annotate import COST_MODELS
from fxremat.errors import FxrematError
from fxremat.estimate.command import add_parser
from fxremat.report.export import export_from_factory


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fxremat", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write a model's problem as JSON")
    export.add_argument("factory", help="module:function that returns a model and its inputs")
    export.add_argument("--out", type=Path, required=True, help="the file to write")
    export.add_argument("--cost", default="auto", choices=COST_MODELS)
    export.set_defaults(run=run_export)
    add_parser(commands)
    args = parser.parse_args()
    # Modules of the directory that the command is run in, as under python -c.
    sys.path.insert(0, "")
    try:
        return args.run(args)
    except FxrematError as error:
        print(f"fxremat: {error}", file=sys.stderr)
        return 1


def run_export(args: argparse.Namespace) -> int:
    """Write a model's problem."""
    args.out.write_text(export_from_factory(args.factory, cost=args.cost))
    return 0


if __name__ == "__main__":
    sys.exit(main())
