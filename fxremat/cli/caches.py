"""`fxremat cache`: where plans and op times are kept, how much that is, and how to empty it."""

from __future__ import annotations

import argparse
from typing import Any

from fxremat.cache import store
from fxremat.cli.shared import add_json, answer


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "cache", help="plans and op times that are kept on disk"
    )
    parser.add_argument("action", nargs="?", default="show", choices=("show", "clear"))
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the cache, or empty it."""
    folder = store.folder()
    if folder is None:
        answer(args, {"folder": None}, f"the cache is off ({store.VARIABLE})")
        return 0
    if args.action == "clear":
        removed = store.clear()
        answer(args, {"folder": str(folder), "removed": removed}, f"{removed} files removed")
        return 0
    files = store.documents()
    figures: dict[str, Any] = {
        "folder": str(folder),
        "bytes": sum(path.stat().st_size for path in files),
    }
    for kind in ("plans", "ops", "ceilings"):
        figures[kind] = sum(path.parent.name == kind for path in files)
    shown = (
        f"{folder}\n{figures['plans']} plans, op times of {figures['ops']} machines or settings, "
        f"{figures['bytes']:,} B"
    )
    answer(args, figures, shown)
    return 0
