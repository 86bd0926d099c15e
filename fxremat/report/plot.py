"""The memory timeline of a plan as a picture."""

# matplotlib's annotations of keyword arguments are partial.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fxremat.errors import MissingPackageError

_MIB = 2**20
_COLORS = ("#9aa5b1", "#1f6fb2")


@dataclass(frozen=True)
class Timeline:
    """Bytes in use while each operation runs; backward begins at step `boundary`."""

    label: str
    nbytes: Sequence[int]
    boundary: int


def plot_timelines(timelines: Sequence[Timeline], budget_bytes: int, path: Path) -> None:
    """Memory while each operation runs, of one or two orders, with the budget as a line."""
    # Only who draws pays for importing it, and training works where it is missing.
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            "a plot is drawn by matplotlib, which isn't installed: pip install 'fxremat[plot]'"
        ) from error

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for line, color in zip(timelines, _COLORS, strict=False):
        mib = [nbytes / _MIB for nbytes in line.nbytes]
        axes.step(range(len(mib)), mib, where="mid", color=color, label=line.label, linewidth=1.4)
        axes.axvline(line.boundary, color=color, linestyle=":", linewidth=1)
    axes.axhline(
        budget_bytes / _MIB, color="#c0392b", linestyle="--", linewidth=1.2, label="budget"
    )
    axes.set_xlabel("operation (dotted: backward begins)")
    axes.set_ylabel("step memory, MiB")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
