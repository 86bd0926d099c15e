"""A report as one reads it on a terminal, in a hundred columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fxremat.plan.options import EXECUTORS
from fxremat.report.figures import Figures, Row
from fxremat.report.shapes import PlannedShape

WIDTH = 100
_MODULE, _LINE, _HOLDER = 24, 34, 84
# Lines of code that are shown; what the others keep and make again is summed up.
_MOST = 25


def human_bytes(nbytes: float) -> str:
    """``12.3 MiB``"""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(nbytes) < 1024 or unit == "GiB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.2f} {unit}"
        nbytes /= 1024
    raise AssertionError


def beginning(text: str, width: int) -> str:
    """A text cut short at its end."""
    return text if len(text) <= width else text[: width - 1] + "…"


def ending(text: str, width: int) -> str:
    """A text cut short at its begin."""
    return text if len(text) <= width else "…" + text[1 - width :]


def summary_of(report: Figures) -> list[tuple[str, str, str]]:
    """The figures of a whole plan: what it is, how much, and a remark."""
    percent = 100 * report.extra_seconds / (report.baseline_seconds or 1.0)
    bound = 100 * report.lower_bound_seconds / (report.baseline_seconds or 1.0)
    return [
        ("budget", human_bytes(report.budget_bytes), report.budget_from),
        ("peak, nothing recomputed", human_bytes(report.baseline_peak_bytes), ""),
        (
            "peak, planned",
            human_bytes(report.planned_peak_bytes),
            f"{report.planned_peak_bytes / report.baseline_peak_bytes:.1%} of it",
        ),
        ("kept for backward", human_bytes(report.residual_bytes), ""),
        (
            "smallest budget",
            "" if report.floor_bytes is None else human_bytes(report.floor_bytes),
            "fxremat.floor(model) searches for it" if report.floor_bytes is None else "",
        ),
        (
            "extra time, predicted",
            f"{percent:.2f} %",
            f"{1e3 * report.extra_seconds:.2f} ms; no schedule takes less than {bound:.2f} %",
        ),
        ("executor", report.executor, EXECUTORS[report.executor]),
        ("solver", report.solver, f"{report.status}, {report.origin}, {report.solve_s:.2f} s"),
        (
            "compilation",
            f"{report.planning_s:.2f} s",
            f"added to {report.capture_s:.2f} s of tracing",
        ),
    ]


def rendered(report: Figures) -> RenderableType:
    """All of it."""
    summary = Table.grid(padding=(0, 2))
    summary.add_column(style="bold")
    summary.add_column(justify="right")
    summary.add_column()
    for label, figure, remark in summary_of(report):
        summary.add_row(label, figure, remark)
    parts: list[RenderableType] = [summary, Text(), _rows(report.rows)]
    if report.holders:
        parts += [Text(), _holders(report)]
    if report.front:
        parts += [Text(), _front(report)]
    if len(report.shapes) > 1:
        parts += [Text(), _shapes(report.shapes)]
    return Group(*parts, *(Text(f"Note: {note}") for note in report.notes))


def table_of(title: str, *headings: tuple[str, bool]) -> Table:
    """An empty table; of each heading whether it is a number's."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading, is_number in headings:
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    return table


def _rows(rows: Sequence[Row]) -> Table:
    table = table_of(
        "Kept and recomputed, by layers and line of code",
        ("layers", False),
        ("line", False),
        ("", True),
        ("kept", True),
        ("recomputed", True),
        ("ms", True),
    )
    # Lines of code get the room that names of layers leave.
    names = [ending(row.module, _MODULE) for row in rows[:_MOST]]
    width = _LINE + _MODULE - max(map(len, (*names, "layers")))
    for name, row in zip(names, rows, strict=False):
        line = f"{row.policy}: {row.source}" if row.policy else row.source
        table.add_row(
            Text(name),
            Text(beginning(line, width)),
            f"x{row.layers}" if row.layers > 1 else "",
            *_figures(row.kept_bytes, row.recomputed_bytes, row.recomputed_seconds),
        )
    others = rows[_MOST:]
    if others:
        kept = sum(row.kept_bytes for row in others)
        recomputed = sum(row.recomputed_bytes for row in others)
        seconds = sum(row.recomputed_seconds for row in others)
        table.add_row(f"and {len(others)} more", "", "", *_figures(kept, recomputed, seconds))
    return table


def _figures(kept: int, recomputed: int, seconds: float) -> tuple[str, str, str]:
    return (
        human_bytes(kept) if kept else "",
        human_bytes(recomputed) if recomputed else "",
        f"{1e3 * seconds:.3f}" if recomputed or seconds else "",
    )


def _holders(report: Figures) -> Table:
    known = report.floor_bytes is not None
    title = "What holds the smallest budget" if known else "What holds the planned peak"
    table = table_of(title, ("value", False), ("bytes", True))
    for what, nbytes in report.holders[:6]:
        table.add_row(Text(beginning(what, _HOLDER)), human_bytes(nbytes))
    return table


def _front(report: Figures) -> Table:
    table = table_of("What budgets cost", ("peak", True), ("more time", True), ("at least", True))
    base = report.baseline_seconds or 1.0
    for point in report.front:
        table.add_row(
            human_bytes(point.peak_bytes),
            f"{100 * point.extra_seconds / base:.2f} %",
            f"{100 * point.lower_bound_seconds / base:.2f} %",
        )
    return table


def _shapes(shapes: Sequence[PlannedShape]) -> Table:
    table = table_of(
        "Plans, by input shape",
        ("graph", True),
        ("inputs that differ", False),
        ("as it is", True),
        ("planned", True),
        ("more time", True),
        ("plan", False),
        ("calls", True),
    )
    for shape in shapes:
        table.add_row(
            str(shape.graph),
            beginning(_sizes(shape), 30),
            human_bytes(shape.baseline_peak_bytes),
            human_bytes(shape.planned_peak_bytes),
            f"{100 * shape.extra_seconds / shape.baseline_seconds:.2f} %",
            shape.origin if shape.extra_seconds else "nothing to recompute",
            str(shape.calls),
        )
    return table


def _sizes(shape: PlannedShape) -> str:
    return ", ".join("x".join(map(str, sizes)) or "number" for sizes in shape.input_shapes)
