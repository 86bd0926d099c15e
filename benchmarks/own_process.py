"""Rows that are measured in a process of their own: nothing is warm, and memory is its alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MARK = "ROW "


class ProcessFailed(RuntimeError):
    """The process ended with an error, or without a row; the message is the end of its stderr."""


def print_row(row: Mapping[str, Any]) -> None:
    """Hand a row to the process that asked for it."""
    print(_MARK + json.dumps(row), flush=True)


def row_of(line: str) -> dict[str, Any] | None:
    """The row that a printed line is, if it is one."""
    return json.loads(line.removeprefix(_MARK)) if line.startswith(_MARK) else None


def rows_of(module: str, *arguments: str) -> list[dict[str, Any]]:
    """The rows that `python -m module arguments` prints. Raises `ProcessFailed`."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    rows = [row for row in map(row_of, lines) if row is not None]
    if done.returncode or not rows:
        raise ProcessFailed(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return rows


def child_environment(threads: int) -> dict[str, str]:
    root = Path(__file__).resolve().parents[1]
    paths = [str(root), str(root / "solvers"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the cell's process and what it started (Inductor starts compilers)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
