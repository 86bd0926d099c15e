"""Parts for testing the kit: jobs that take no time, that fail, that kill, that hang.

No torch: what is tested is what happens to a part's process, not what it measures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cuda.job import Job


def counted(key: str) -> Mapping[str, Any]:
    """Leaves a line behind, so that a test can count how often a job has run."""
    with Path(os.environ["KIT_RUNS"]).open("a") as file:
        file.write(f"{key}\n")
    return {"figures": {"one": 1}}


def fails(_rows: object) -> Mapping[str, Any]:
    raise RuntimeError("an illegal memory access was encountered")


def kills(_rows: object) -> Mapping[str, Any]:
    os._exit(7)


def hangs(_rows: object) -> Mapping[str, Any]:
    counted("hangs")
    time.sleep(600)
    return {}


def fine(key: str) -> Job:
    return Job(key, lambda _rows: counted(key))


def troubled(_part: str, _device: str) -> list[Job]:
    missing = Job("missing", lambda _rows: counted("missing"), needs=("no_such_package",))
    return [fine("first"), Job("fails", fails), Job("kills", kills), missing, fine("last")]


def sticky(_part: str, _device: str) -> list[Job]:
    def poison(_rows: object) -> Mapping[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    return [Job("poison", poison), fine("last")]


def hanging(_part: str, _device: str) -> list[Job]:
    return [fine("first"), Job("hangs", hangs), fine("last")]
