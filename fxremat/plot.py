"""The memory timeline of a plan as a picture."""

# matplotlib's annotations of keyword arguments are partial.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fxremat.report import Report

_MIB = 2**20


def plot_timeline(report: Report, path: Path) -> None:
    """Memory while each operation runs, untouched and planned, with the budget as a line."""
    # Only who draws pays for importing it, and training works where it is missing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for timeline, boundary, label, color in (
        (report.baseline_timeline_bytes, report.baseline_boundary, "untouched", "#9aa5b1"),
        (report.timeline_bytes, report.boundary, "planned", "#1f6fb2"),
    ):
        mib = [nbytes / _MIB for nbytes in timeline]
        axes.step(range(len(mib)), mib, where="mid", color=color, label=label, linewidth=1.4)
        axes.axvline(boundary, color=color, linestyle=":", linewidth=1)
    axes.axhline(
        report.budget_bytes / _MIB, color="#c0392b", linestyle="--", linewidth=1.2, label="budget"
    )
    axes.set_xlabel("operation (dotted: backward begins)")
    axes.set_ylabel("step memory, MiB")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
