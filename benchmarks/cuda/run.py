"""The run: installs what is missing, then each part in a process of its own, then the report.

This process imports nothing but the standard library, so that it can install what the parts need,
and lives through whatever befalls them. A part's process that dies or hangs is started again with
the cells that are left; the cell it died of is a row that says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.cuda import report, states
from benchmarks.cuda.install import install
from benchmarks.cuda.machine import ROOT, same_run
from benchmarks.cuda.worker import Spec
from benchmarks.own_process import child_environment, stop

PARTS = ("tests", "exactness", "graphs", "bench", "inductor", "loops", "estimate")
TOGETHER = ("tests", "exactness", "graphs")
"""These measure bytes and bits, by counters of a process's own: on a device they run at once."""
TOGETHER_SHARE = 0.5  # of the time, where others come after them

REPORT_S = 5  # kept back for the end
POLL_S = 0.2
MACHINE_S = 120  # importing torch from a cold disk, and starting the device


@dataclass(frozen=True)
class Options:
    device: str = "cuda"
    parts: tuple[str, ...] = PARTS
    out: Path = Path("bench-output/cuda")
    limit_s: float = 540
    cell_limit_s: float = 150
    wheels: Path | None = None
    retry: bool = False
    threads: int = 1
    jobs: str = Spec.jobs
    command: Sequence[str] = field(default_factory=tuple)


def run(options: Options, say: Callable[[str], None] = print) -> int:
    """Returns 0 where all went well, 1 where a row is bad, 2 where time ran out."""
    started = time.time()
    end = started + options.limit_s - REPORT_S
    options.out.mkdir(parents=True, exist_ok=True)
    environment = child_environment(options.threads if options.device == "cpu" else 4)
    environment |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONUNBUFFERED": "1"}
    if options.wheels is not None:
        site = ROOT / "bench-output" / f"cuda-site-{sys.version_info[0]}.{sys.version_info[1]}"
        for line in install(options.wheels, site, end - time.time()):
            say(line)
        environment["PYTHONPATH"] = f"{site}{os.pathsep}{environment['PYTHONPATH']}"
    about = machine_of(options, environment, say)
    if about is None:
        return 1
    for group, share in groups_of(options.parts, options.device):
        deadline = time.time() + share * (end - time.time())
        with ThreadPoolExecutor(len(group)) as pool:
            for each in [
                pool.submit(run_part, part, options, environment, deadline, say) for part in group
            ]:
                each.result()
    found = {part: records.load(options.out, f"{part}.jsonl") for part in PARTS}
    text = report.report(about, {part: list(rows.values()) for part, rows in found.items()})
    (options.out / "report.md").write_text(text)
    say(f"{options.out / 'report.md'}: {time.time() - started:.0f} s in all")
    rows = [row for part in options.parts for row in found[part].values()]
    for row in rows:
        if states.is_bad(row):
            say(f"{row['key']}: {states.judged(row)}: {row.get('reason', '')[-700:]}")
    if any(states.is_bad(row) for row in rows):
        return 1
    return 0 if rows and all(row["status"] in states.FINISHED for row in rows) else 2


def groups_of(parts: Sequence[str], device: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """Which parts run at once, one group after another, and their share of the time left."""
    group = tuple(part for part in parts if part in TOGETHER)
    if device == "cpu":  # there are no cores to spare
        for i, part in enumerate(parts):
            yield (part,), 1 / (len(parts) - i)
        return
    timed = tuple(part for part in parts if part not in TOGETHER)
    if group:
        yield group, TOGETHER_SHARE if timed else 1.0
    for i, part in enumerate(timed):
        yield (part,), 1 / (len(timed) - i)


def machine_of(
    options: Options, environment: Mapping[str, str], say: Callable[[str], None]
) -> dict[str, Any] | None:
    """What the rows are made on. Those of other sources or another device are set aside."""
    fresh = options.out / "machine.new"
    fresh.unlink(missing_ok=True)
    spec = Spec("machine", options.device, str(options.out), 0, os.getpid())
    limit = time.time() + MACHINE_S
    code = watch(spec, options, environment, limit)
    if not fresh.exists():
        said = last_lines(options.out, spec.part)
        say(f"the device can't be used (process ended with {code}): {said}")
        return None
    about = json.loads(fresh.read_text()) | {"command": list(options.command)}
    fresh.unlink()
    kept = options.out / "machine.json"
    if kept.exists() and not same_run(json.loads(kept.read_text()), about):
        set_aside(options.out, say)
    kept.write_text(json.dumps(about, indent=1) + "\n")
    return about


def set_aside(out: Path, say: Callable[[str], None]) -> None:
    """Moves an earlier run's files into a folder beside them."""
    target = next(f for i in range(1, 10_000) if not (f := out / f"earlier-{i}").exists())
    target.mkdir()
    for name in ("machine.json", "report.md", *(f"{part}.jsonl" for part in PARTS)):
        if (out / name).exists():
            (out / name).rename(target / name)
    say(f"rows of other sources, versions or another device: moved to {target}")


def run_part(
    part: str,
    options: Options,
    environment: Mapping[str, str],
    deadline: float,
    say: Callable[[str], None],
) -> None:
    """Runs a part until its cells are done or its time is over; what is done isn't run again."""
    file, begun = f"{part}.jsonl", time.time()
    own = f"{part}: process"
    tidy(options.out, file, own, retry=options.retry)
    spec = Spec(part, options.device, str(options.out), deadline, os.getpid(), options.jobs)
    spec = replace(spec, deterministic=part != "bench")  # step times are of the usual kernels
    while time.time() < deadline:
        before = records.load(options.out, file)
        if before and all(row["status"] in states.FINISHED for row in before.values()):
            break
        code = watch(spec, options, environment, deadline)
        rows = records.load(options.out, file)
        caught = [row for row in rows.values() if row["status"] == "running"]
        for row in caught:
            records.append(options.out, ended(row, code, options), file)
        if code == states.RESTART and rows != before:
            say(f"{part}: the device was left unusable; going on in a new process")
            continue
        if not caught:
            if code:
                reason = f"the process ended with {code}: {last_lines(options.out, part)}"
                row = {"key": own, "part": part, "status": "failed", "reason": reason}
                records.append(options.out, row, file)
            break  # it went through its cells, or never came to them
        say(f"{part}: {caught[0]['key']}: its process ended with {code}")
    records.compact(options.out, file)
    rows = records.load(options.out, file).values()
    say(f"{part}: {report.counts(rows)}, {time.time() - begun:.0f} s")


def tidy(out: Path, file: str, own: str, *, retry: bool) -> None:
    """Forgets what is to be tried again: a process's own failure and, if asked to, failed cells."""
    rows = records.load(out, file)
    kept = {
        key: {"key": key, "part": row["part"], "status": "waiting"}
        if retry and row["status"] == "failed"
        else row
        for key, row in rows.items()
        if key != own
    }
    if kept != rows:
        (out / file).unlink()
        for row in kept.values():
            records.append(out, row, file)


def ended(row: records.Row, code: int | str, options: Options) -> dict[str, Any]:
    """The row of the cell in which the process ended."""
    rest = {k: v for k, v in row.items() if k != "since"}
    if code == "deadline":
        return {**rest, "status": "cut off", "reason": "the part's time was over"}
    if code == "cell limit":
        reason = f"over the limit of {options.cell_limit_s:g} s a cell"
        return {**rest, "status": "failed", "reason": reason}
    reason = f"the process ended with {code}: {last_lines(options.out, row['part'])}"
    return {**rest, "status": "failed", "reason": reason}


def watch(
    spec: Spec, options: Options, environment: Mapping[str, str], deadline: float
) -> int | str:
    """Runs a worker to its end: its exit code, or which limit it was ended by."""
    with log_of(options.out, spec.part).open("ab") as log:
        log.write(f"== {spec.part}, {time.strftime('%H:%M:%S')}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cuda.worker", json.dumps(asdict(spec))],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                if time.time() > deadline:
                    return "deadline"
                if over_the_limit(spec, options):
                    return "cell limit"
                time.sleep(POLL_S)
            return process.returncode
        finally:
            stop(process)


def over_the_limit(spec: Spec, options: Options) -> bool:
    rows = records.load(options.out, spec.file).values()
    begun = [row["since"] for row in rows if row["status"] == "running"]
    return bool(begun) and time.time() - max(begun) > options.cell_limit_s


def log_of(out: Path, part: str) -> Path:
    return out / f"{part}.log"


def last_lines(out: Path, part: str) -> str:
    """The end of a part's log, from where its last process began."""
    log = log_of(out, part)
    text = log.read_text(errors="replace") if log.exists() else ""
    return text.rpartition("\n== ")[2].strip()[-500:]
