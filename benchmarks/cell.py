"""One cell of the benchmark: a model, a method and a point of its dial, in a process of its own.

`python -m benchmarks.cell SPEC` runs the cell and writes its row, as JSON, to the file that SPEC
names. The parent, which starts one such process a cell, is `benchmarks.runner`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cell:
    """What to run. `kind` is `step` (one step, measured every way), `batch` (the largest batch
    that fits `budget_bytes`) or `clip` (gradient clipping over a training run).

    `numbers` change the model's size; `budget_bytes` is filled in by the runner where the point
    names another row's measurement.
    """

    model: str
    method: str
    point: str = ""
    kind: str = "step"
    size: str = "bench"
    numbers: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    device: str = "cpu"
    budget_bytes: int | None = None

    @property
    def key(self) -> str:
        """Names the cell among the rows of one run."""
        numbers = ",".join(f"{k}={v}" for k, v in sorted(self.numbers.items()))
        parts = (self.kind, self.model, self.size, numbers, self.method, self.point, self.device)
        return "|".join((*parts, str(self.seed)))

    @property
    def label(self) -> str:
        """For the progress bar."""
        point = f" {self.point}" if self.point else ""
        numbers = "".join(f" {k}={v}" for k, v in self.numbers.items())
        return f"{self.kind}: {self.model}{numbers}, {self.method}{point}"


def run(cell: Cell, effort: Mapping[str, Any]) -> dict[str, Any]:
    """The cell's row; what goes wrong becomes the row's status and reason."""
    from benchmarks.kinds import KINDS
    from benchmarks.methods import Unavailable

    try:
        return {"status": "ok", **KINDS[cell.kind](cell, effort)}
    except Unavailable as error:
        return {"status": "unavailable", "reason": str(error)}
    except Exception as error:  # a failing cell is a row that says why
        trace = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(trace.filename).name}:{trace.lineno}"
        reason = f"{type(error).__name__}: {str(error).strip()[:600]} ({where})"
        return {"status": "failed", "reason": reason}


def main(spec: str) -> None:
    task = json.loads(spec)
    cell = Cell(**task["cell"])
    end_with(task["parent"])
    limit_memory(task["memory_limit_bytes"], cell.device)
    import torch

    torch.set_num_threads(task["threads"])
    row = run(cell, task["effort"])
    Path(task["out"]).write_text(json.dumps({**asdict(cell), "key": cell.key, **row}))


def end_with(parent: int) -> None:
    """Ends this process once the run that started it is gone, whichever way that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def limit_memory(limit_bytes: int, device: str) -> None:
    """Caps the address space; on CUDA the driver maps far more than is used, so it isn't capped."""
    if device == "cpu" and sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


if __name__ == "__main__":
    main(sys.argv[1])
