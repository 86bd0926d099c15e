"""The sweep: every model in a process of its own; models that have a row aren't run again."""

from __future__ import annotations

import datetime
import fnmatch
import multiprocessing
import multiprocessing.context
import os
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import records
from benchmarks.cuda.machine import commit
from benchmarks.own_process import child_environment
from benchmarks.sweep import outcomes, sources
from benchmarks.sweep.one import report

PRELOAD = "benchmarks.sweep.preload"


def sweep(
    patterns: Sequence[str],
    out: Path,
    limit_s: float,
    console: Console,
    known: Mapping[str, str] = sources.SOURCES,
    retry: Sequence[str] = (),
    preload: str = PRELOAD,
    executor: str = "eager",
) -> None:
    """Runs the models whose `label/name` is like one of `patterns`.

    Those with a row are passed over, but for the outcomes in `retry`.
    """
    done = records.load(out)
    asked = {
        label: module
        for label, module in known.items()
        if any(fnmatch.fnmatch(label, pattern.partition("/")[0]) for pattern in patterns)
    }
    chosen = [
        name
        for name in sources.names(asked, console.print)
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
        and (name not in done or done[name]["outcome"] in retry)
    ]
    console.print(f"{len(chosen)} models, {len(done)} rows in {out}")
    common = records.environment(1) | origin()
    for i, name in enumerate(chosen):
        row = {"key": name, **run(name, limit_s, known, preload, executor), **common}
        row["date"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
        records.append(out, row)
        said = row.get("reference") or row.get("reason", "")
        console.print(
            f"{i + 1}/{len(chosen)} {name}: {row['outcome']}, {said[:120]} ({row['seconds']} s)",
            markup=False,
            highlight=False,
        )
    records.compact(out)


def run(
    name: str,
    limit_s: float,
    known: Mapping[str, str],
    preload: str = PRELOAD,
    executor: str = "eager",
) -> dict[str, Any]:
    """The row of one model, whatever becomes of its process."""
    label, _, own = name.partition("/")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with _forked(preload) as context:
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=report, args=(known[label], own, send, log, executor))
            process.start()
        send.close()
        try:
            if receive.poll(limit_s):
                row = receive.recv()
            else:
                row = {"outcome": outcomes.SLOW, "reason": f"more than {limit_s:g} s"}
        except EOFError:
            process.join()
            said = log.read_text(errors="replace")[-300:] if log.exists() else ""
            reason = f"the process ended with {process.exitcode}: {said}"
            row = {"outcome": outcomes.CRASH, "reason": reason}
        finally:
            process.kill()
            process.join()
            receive.close()
    return {"seconds": round(time.perf_counter() - started, 2), **row}


@contextmanager
def _forked(preload: str) -> Generator[multiprocessing.context.ForkServerContext]:
    """Processes forked of one that has imported the libraries and run nothing: a third faster.

    That one starts with the first of them, and has this environment.
    """
    before = dict(os.environ)
    # Nothing is ever downloaded: a model that asks for its weights isn't built.
    os.environ.update(child_environment(1) | {"HF_HUB_OFFLINE": "1"})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    try:
        yield context
    finally:
        os.environ.clear()
        os.environ.update(before)


def origin() -> dict[str, Any]:
    """The commit and the command that rows are of."""
    command = "python -m benchmarks " + " ".join(sys.argv[1:])
    return {"commit": commit(), "command": command, "timm": _version("timm")}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
