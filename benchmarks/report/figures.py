"""The report's plots: the front of peak against time, prediction against measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.plots import MEBI, plt, save
from benchmarks.records import Row
from benchmarks.report.rows import Rows, is_ours, is_right

MARKS = {
    "eager": "s",
    "aot_default": "s",
    "aot_eager": "s",
    "inductor": "s",
    "checkpoint": "^",
    "selective": "v",
    "torch-budget": "o",
    "rockmate": "P",
    "fxremat": "*",
}


def write(rows: Rows, folder: Path) -> list[Path]:
    """All plots for which there are rows."""
    written: list[Path] = []
    for stale in folder.glob("*.png"):
        stale.unlink()
    for model in rows.models():
        points = [row for row in rows.steps(model) if "time" in row]
        if len(points) > 1:
            written.append(front(model, points, folder / f"front-{model}.png"))
    timelines = [
        row for row in rows.of_kind("step") if row.get("timeline") and row["method"] == "fxremat"
    ]
    for model in rows.models():
        mine = {r["point"]: r for r in timelines if r["model"] == model}
        half = mine.get("0.5", mine.get("=eager/2"))
        if half is not None:
            path = folder / f"timeline-{model}.png"
            written.append(timeline(model, rows.step(model, "eager"), half, path))
    solved = [row for row in rows.of_kind("step", plain=False) if is_ours(row)]
    if solved:
        written.append(solve_times(solved, folder / "solve-time.png"))
    return written


def mark(method: str) -> str:
    return next((m for prefix, m in MARKS.items() if method.startswith(prefix)), "x")


def front(model: str, rows: list[Row], path: Path) -> Path:
    """Measured peak against step time, one point a row; wrong gradients are hollow."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    colours: dict[str, Any] = {m: plt.get_cmap("tab20")(i % 20) for i, m in enumerate(methods)}
    for method in methods:
        mine = sorted((r for r in rows if r["method"] == method), key=lambda r: r["peak_bytes"])
        xs = [row["peak_bytes"] / MEBI for row in mine]
        ys = [row["time"]["median"] for row in mine]
        colour = colours[method]
        filled = [colour if is_right(row) else "white" for row in mine]
        spread = [[y - r["time"]["low"] for y, r in zip(ys, mine, strict=True)]]
        spread.append([r["time"]["high"] - y for y, r in zip(ys, mine, strict=True)])
        axes.errorbar(xs, ys, spread, color=colour, linewidth=0.8, elinewidth=0.6, alpha=0.6)
        axes.scatter(
            xs, ys, marker=mark(method), c=filled, edgecolors=colour, s=60, label=method, zorder=3
        )
    axes.set_xlabel("measured peak, MiB above entry")
    axes.set_ylabel("step time / eager's")
    axes.set_title(f"{model}: peak against time (hollow: wrong gradients)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return save(figure, path)


def timeline(model: str, eager: Row | None, row: Row, path: Path) -> Path:
    """Memory through the step: eager's, the plan's as predicted and as measured, and the budget.

    Each curve has its own clock, the share of its events: allocations measured, ops predicted.
    """
    figure, axes = plt.subplots(figsize=(8, 4))
    facts = row["facts"]
    pairs = [("fxremat, measured", row["timeline"])]
    if eager is not None and eager.get("timeline"):
        pairs.insert(0, ("eager, measured", eager["timeline"]))
    if facts.get("predicted_timeline"):
        pairs.append(("fxremat, predicted", facts["predicted_timeline"]))
    for label, levels in pairs:
        share = [i / max(1, len(levels) - 1) for i in range(len(levels))]
        style = {"linestyle": ":", "color": "black"} if label.endswith("predicted") else {}
        axes.plot(share, [level / MEBI for level in levels], label=label, linewidth=1, **style)
    budget = facts["budget_bytes"] / MEBI
    axes.axhline(budget, color="black", linestyle="--", linewidth=1, label="budget")
    axes.set_xlabel("progress of the step (share of its events)")
    axes.set_ylabel("MiB above the level at entry")
    axes.set_title(f"{model}: memory through one training step")
    axes.legend(fontsize=8)
    return save(figure, path)


def solve_times(rows: list[Row], path: Path) -> Path:
    """Time to solve against the number of operations in the graph."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        xs = [row["facts"]["ops"] for row in mine]
        axes.scatter(xs, [max(1e-3, row["facts"]["solve_s"]) for row in mine], s=20, label=method)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations in the joint graph")
    axes.set_ylabel("solve time, s")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return save(figure, path)
