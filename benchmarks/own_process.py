"""Rows that are measured in a process of their own: nothing is warm, and memory is its alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

_MARK = "ROW "


class ProcessFailed(RuntimeError):
    """The process ended with an error, or without a row; the message is the end of its stderr."""


def print_row(row: Mapping[str, Any]) -> None:
    """Hand a row to the process that asked for it."""
    print(_MARK + json.dumps(row), flush=True)


def rows_of(module: str, *arguments: str) -> list[dict[str, Any]]:
    """The rows that `python -m module arguments` prints. Raises `ProcessFailed`."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    rows = [json.loads(line.removeprefix(_MARK)) for line in lines if line.startswith(_MARK)]
    if done.returncode or not rows:
        raise ProcessFailed(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return rows
