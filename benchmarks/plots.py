"""The plots: memory through a step, and the front of peak memory against step time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MEBI = 1 << 20


def save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
    return path


def measured_timelines(
    path: Path, timelines: Mapping[str, Sequence[int]], budget_bytes: int | None = None
) -> Path:
    """Live bytes after every allocation and free of one step, one line a model."""
    figure, axes = plt.subplots(figsize=(8, 4))
    for name, levels in timelines.items():
        share = [i / max(1, len(levels) - 1) for i in range(len(levels))]
        axes.plot(share, [level / MEBI for level in levels], label=name, linewidth=1)
    if budget_bytes is not None:
        axes.axhline(
            budget_bytes / MEBI, color="black", linestyle="--", linewidth=1, label="budget"
        )
    axes.set_xlabel("progress of the step (share of its allocator events)")
    axes.set_ylabel("MiB above the level at entry")
    axes.set_title("Measured memory through one training step")
    axes.legend()
    return save(figure, path)
