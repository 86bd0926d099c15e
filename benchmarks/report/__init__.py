"""The report of a run: one markdown page with a table a question, and the plots."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import records
from benchmarks.marks import write_between
from benchmarks.report import figures, questions, tables
from benchmarks.report.rows import Rows
from benchmarks.report.targets import targets

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"

HEADER = """# Benchmark results

Written by `python -m benchmarks report` from `{file}`; nothing here is typed in by hand.

{environment}

Peak is the most bytes live at once during forward and backward above the level at entry, by the
allocator's own events (CPU) or counters (CUDA). Time is the median of the ratios of alternating
rounds against the untouched eager step in the same process, the middle half in brackets: CPU time
of the process where a cell has one thread, wall time otherwise. Gradients are `bitwise` equal to
eager's (with losses, buffers and the random state), `close` (the order of float sums differs;
relative error under 1e-4), or **wrong**.
"""


def write(folder: Path) -> list[Path]:
    """Writes the page and the plots beside the rows; returns what was written."""
    rows = Rows(tuple(records.load(folder).values()))
    if not rows.all:
        raise SystemExit(f"no rows in {folder / records.FILE}: run the benchmark first")
    header = HEADER.format(file=records.FILE, environment=tables.environment(rows))
    plots = figures.write(rows, folder)
    sections = [header, targets(rows), *questions.sections(rows)]
    sections += [tables.methods_used(rows), tables.not_run(rows)]
    if plots:
        sections.append("## Plots\n\n" + "\n".join(f"![{p.stem}]({p.name})" for p in plots))
    page = folder / "report.md"
    page.write_text("\n\n".join(section.strip() for section in sections if section) + "\n")
    return [page, *plots]


def write_into(page: Path, folder: Path) -> Path:
    """Puts the run's table and plot between the marks of another page, for instance a README."""
    rows = Rows(tuple(records.load(folder).values()))
    where = os.path.relpath(folder, page.parent)
    parts = [questions.overview(rows), tables.environment(rows)]
    model = rows.models()[0]
    if (folder / f"front-{model}.png").exists():
        parts.append(f"![peak against time, {model}]({where}/front-{model}.png)")
    parts.append(f"All rows: [{where}/report.md]({where}/report.md).")
    write_between(page, BEGIN, END, "\n\n".join(part.strip() for part in parts if part))
    return page
