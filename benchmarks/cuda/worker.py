"""One part's process: runs its cells one after another and appends a row when each ends.

A row is written before a cell begins too (`running`), so that whoever finds this process dead
knows which cell it was. `python -m benchmarks.cuda.worker SPEC`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.cell import end_with
from benchmarks.cuda.job import Job
from benchmarks.cuda.states import FINISHED, RESTART, is_sticky


@dataclass(frozen=True)
class Spec:
    """What a worker is told. `jobs` names the function that lists the part's cells; `stop_at` is
    when no further cell may begin, in seconds since the epoch."""

    part: str
    device: str
    folder: str
    stop_at: float
    parent: int
    jobs: str = "benchmarks.cuda.parts:jobs_of"
    deterministic: bool = True

    @property
    def file(self) -> str:
        return f"{self.part}.jsonl"


def run_jobs(jobs: Sequence[Job], spec: Spec) -> None:
    """Every job without a final row, until the time is over."""
    folder = Path(spec.folder)
    rows = dict(records.load(folder, spec.file))

    def keep(key: str, row: Mapping[str, Any]) -> None:
        rows[key] = {**row, "key": key, "part": spec.part}
        records.append(folder, rows[key], spec.file)

    for job in jobs:
        if job.key not in rows:
            keep(job.key, {"status": "waiting"})
    group: str | None = None
    for job in jobs:
        if rows[job.key]["status"] in FINISHED:
            continue
        if time.time() > spec.stop_at:
            return
        if group not in (None, job.group):
            forget(spec.device)
        group = job.group
        keep(job.key, {"status": "running", "since": time.time()})
        started = time.perf_counter()
        with settings_kept():
            row = attempt(job, rows)
        keep(job.key, {**row, "wall_s": round(time.perf_counter() - started, 1)})
        if row["status"] == "failed":
            if is_sticky(row["reason"]):
                os._exit(RESTART)  # ending in order would wait for the device
            forget(spec.device)


def attempt(job: Job, rows: Mapping[str, records.Row]) -> Mapping[str, Any]:
    """The job's row; what goes wrong becomes its status and reason."""
    for package in job.needs:
        try:
            importlib.import_module(package)
        except Exception as error:  # a package that is broken is as good as missing
            reason = f"needs {package}: {type(error).__name__}: {error}"
            return {"status": "unavailable", "reason": reason[:600]}
    try:
        return {"status": "ok", **job.run(rows)}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        traceback.print_exc()
        place = f"{Path(where.filename).name}:{where.lineno}"
        reason = f"{type(error).__name__}: {str(error).strip()[:1200]} ({place})"
        return {"status": "failed", "reason": reason}


@contextmanager
def settings_kept() -> Iterator[None]:
    """torch's own budget is a global setting: a cell's must not reach the next one."""
    if "torch" not in sys.modules:
        yield
        return
    import torch._functorch.config as config

    with config.patch(activation_memory_budget=config.activation_memory_budget):
        yield


def forget(device: str) -> None:
    """What earlier cells compiled and cached: rests of cached blocks would raise later peaks."""
    if "torch" not in sys.modules:
        return
    import torch

    torch._dynamo.reset()
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def be_deterministic() -> None:
    """The kernels that repeat, where there are some; cuBLAS's workspace is set by the parent."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def run_tests(spec: Spec) -> int:
    """tests/gpu under pytest, a row a test."""
    import pytest

    from benchmarks.cuda.pytest_rows import RowsPlugin

    os.environ["FXREMAT_TEST_DEVICE"] = spec.device
    folder = Path(__file__).resolve().parents[2] / "tests" / "gpu"
    words = [str(folder), "-q", "-p", "no:cacheprovider", "--show-capture=no"]
    return int(pytest.main(words, plugins=[RowsPlugin(spec)]))


def main(words: str) -> int:
    spec = Spec(**json.loads(words))
    end_with(spec.parent)
    if spec.part == "machine":
        from benchmarks.cuda.machine import machine

        text = json.dumps(machine(spec.device), indent=1)
        (Path(spec.folder) / "machine.new").write_text(text + "\n")
        return 0
    module, _, name = spec.jobs.partition(":")
    if spec.part == "tests" and spec.jobs == Spec.jobs:
        return 1 if run_tests(spec) not in (0, 1, 5) else 0
    jobs_of: Callable[[str, str], list[Job]] = getattr(importlib.import_module(module), name)
    jobs = jobs_of(spec.part, spec.device)
    if "torch" in sys.modules:
        import torch

        if torch.device(spec.device).type == "cpu":
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        if spec.deterministic:
            be_deterministic()
    run_jobs(jobs, spec)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
