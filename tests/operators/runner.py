"""Runs cases in processes of their own, so that one that crashes is one row and no more."""

from __future__ import annotations

import faulthandler
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.own_process import child_environment, print_row, row_of
from tests.operators.outcome import FINE, Outcome, outcome_of
from tests.operators.samples import Case

# A new process takes seconds; one that lives for ever gathers what torch caches.
CASES_A_PROCESS = 96


def run(
    names: Sequence[str],
    folder: Path,
    about: Mapping[str, Any],
    *,
    limit_s: float,
    retry: bool = False,
    tell: Callable[[records.Row], None] = lambda _: None,
) -> None:
    """Adds the rows that `folder` has not; with `retry` also those of cases that failed."""
    known = records.load(folder)
    todo = [n for n in names if n not in known or (retry and known[n]["kind"] not in FINE)]
    for start in range(0, len(todo), CASES_A_PROCESS):
        for row in rows_of(todo[start : start + CASES_A_PROCESS], limit_s):
            row = {"key": row["name"], **row, **about}
            records.append(folder, row)
            tell(row)
    records.compact(folder)


def rows_of(names: Sequence[str], limit_s: float) -> Iterator[dict[str, Any]]:
    """A row a case, in order, in as few processes as crashes allow."""
    left = list(names)
    while left:
        command = [sys.executable, "-m", "tests.operators", "--here", "--limit-s", str(limit_s)]
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            process = subprocess.Popen(
                [*command, *left],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=child_environment(threads=1),
            )
            assert process.stdout is not None
            for line in process.stdout:
                row = row_of(line)
                if row is not None:
                    del left[0]
                    yield row
            code = process.wait()
            log.seek(0)
            said = log.read()
        if left:
            # Rows come in order, so the process ended in the first that has none.
            yield {**asdict(_ended(left.pop(0), code, said)), "seconds": 0.0}


def _ended(name: str, code: int, said: str) -> Outcome:
    """The outcome of a case in which its process ended."""
    if code < 0:
        return Outcome(name, "crash", signal.Signals(-code).name)
    if "Timeout (" in said:
        return Outcome(name, "out of time")
    return Outcome(name, "crash", " ".join(said.strip().splitlines()[-1:])[:300])


def run_here(names: Iterable[str], limit_s: float) -> None:
    """Prints a row a case. A case over the limit ends the process, whatever it is doing."""
    for name in names:
        faulthandler.dump_traceback_later(limit_s, exit=True)
        started = time.perf_counter()
        outcome = outcome_of(Case.named(name))
        faulthandler.cancel_dump_traceback_later()
        print_row({**asdict(outcome), "seconds": round(time.perf_counter() - started, 2)})
