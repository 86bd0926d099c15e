"""Runs cells, each in a process of its own with a time and a memory limit, and keeps their rows."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks import records
from benchmarks.cell import Cell
from benchmarks.own_process import child_environment, stop
from benchmarks.records import Row


@dataclass(frozen=True)
class Limits:
    """Of one cell. One thread by default: on a shared machine two threads wait for each other."""

    time_s: float = 900
    memory_bytes: int = 16 << 30
    threads: int = 1
    jobs: int = 1


class Waiting(Exception):
    """The cell's budget is another cell's measurement, and there is none."""


def resolve(cell: Cell, rows: Mapping[str, Row]) -> Cell:
    """Fills in a budget that names another row: `=checkpoint-block`, `=eager/2`."""
    if not cell.point.startswith("="):
        return cell
    name, _, divisor = cell.point[1:].partition("/")
    wanted = dataclasses.replace(cell, method=name, point="", kind="step", numbers={})
    if cell.kind == "step":
        wanted = dataclasses.replace(wanted, numbers=cell.numbers)
    row = rows.get(wanted.key)
    if row is None or row["status"] != "ok":
        raise Waiting(f"the budget is {name}'s measured peak, and that row has none")
    return dataclasses.replace(cell, budget_bytes=int(row["peak_bytes"] / float(divisor or 1)))


def run_cell(cell: Cell, effort: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Runs one cell in a new process and returns its row."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "row.json", Path(folder) / "log"
        spec = {
            "cell": asdict(cell),
            "effort": effort,
            "threads": limits.threads,
            "memory_limit_bytes": limits.memory_bytes,
            "out": str(out),
            "parent": os.getpid(),
        }
        started = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.cell", json.dumps(spec)]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=child_environment(limits.threads),
                start_new_session=True,
            )
            try:
                code = process.wait(limits.time_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                stop(process)
        wall_s = time.perf_counter() - started
        base = {**asdict(cell), "key": cell.key, "wall_s": round(wall_s, 1)}
        base |= records.environment(limits.threads)
        if out.exists():
            return {**base, **json.loads(out.read_text())}
        if code is None:
            reason = f"over the time limit of {limits.time_s:g} s"
        else:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            reason = f"the process ended with {code}: {''.join(last)[:300]}"
        return {**base, "status": "failed", "reason": reason}


def interruptible(
    futures: Mapping[Future[dict[str, Any]], Cell], pool: ThreadPoolExecutor
) -> Iterator[Future[dict[str, Any]]]:
    """Futures as they end; an interrupt drops the cells that haven't started."""
    try:
        yield from as_completed(futures)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def run(
    cells: Sequence[Cell],
    folder: Path,
    effort: Mapping[str, Any],
    limits: Limits,
    console: Console,
    retry: bool = False,
) -> None:
    """Runs what isn't done yet; cells whose budget is another's measurement come after it."""
    rows = dict(records.load(folder))
    done = ("ok",) if retry else ("ok", "unavailable", "failed")
    todo = [
        c
        for c in cells
        if rows.get(c.key, {}).get("status") not in done or rows[c.key].get("waiting")
    ]
    console.print(f"{len(cells)} cells, {len(cells) - len(todo)} done before, {len(todo)} to run")
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with (
        Progress(*columns, console=console) as progress,
        ThreadPoolExecutor(limits.jobs) as pool,
    ):
        bar = progress.add_task("", total=len(todo))

        def start(cell: Cell) -> dict[str, Any]:
            progress.update(bar, description=cell.label)
            return run_cell(cell, effort, limits)

        first = [c for c in todo if not c.point.startswith("=")]
        for wave in (first, [c for c in todo if c.point.startswith("=")]):
            futures: dict[Future[dict[str, Any]], Cell] = {}
            for cell in wave:
                try:
                    futures[pool.submit(start, resolve(cell, rows))] = cell
                except Waiting as error:
                    # What it waits for may be measured by a later run, which tries it again.
                    row = {**asdict(cell), "key": cell.key, "status": "unavailable"}
                    row["waiting"] = True
                    records.append(folder, {**row, "reason": str(error)})
                    progress.advance(bar)
            for future in interruptible(futures, pool):
                row = future.result()
                rows[row["key"]] = row
                records.append(folder, row)
                progress.advance(bar)
                if row["status"] != "ok":
                    label = futures[future].label
                    console.print(f"{label}: {row['status']}, {row['reason']}", markup=False)
    records.compact(folder)
