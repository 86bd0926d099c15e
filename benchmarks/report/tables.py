"""Markdown tables and the formats of their cells."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.records import Row
from benchmarks.report.rows import Rows

MEBI = 1 << 20


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table, its first column aligned left and the others right; two columns are both left."""
    rule = ["---", *("---:" for _ in columns[1:])] if len(columns) > 2 else ["---", "---"]
    return "\n".join("| " + " | ".join(line) + " |" for line in (columns, rule, *lines))


def section(title: str, about: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A titled table; nothing where there are no lines."""
    if not lines:
        return ""
    return f"## {title}\n\n{about.strip()}\n\n{markdown(columns, lines)}"


def mebibytes(nbytes: float | None) -> str:
    return "-" if nbytes is None else f"{nbytes / MEBI:.1f}"


def percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None else f"{100 * share:+.{digits}f} %"


def ratio(row: Row) -> str:
    time = row["time"]
    return f"{time['median']:.2f} [{time['low']:.2f}, {time['high']:.2f}]"


def gradients(row: Row) -> str:
    """The verdict; a wrong row's error; a compiled row may equal AOTAutograd's graph."""
    verdict = row["verdict"]
    if verdict == "bitwise":
        return verdict
    error = row["comparison"]["relative_error"]
    if row.get("equals_aot_eager"):
        return f"bitwise to AOTAutograd's graph ({error:.0e} to eager)"
    if verdict == "wrong":
        cause = "" if error >= 1e-4 else " in buffers"
        return f"**wrong**{cause} ({error:.1e})"
    return f"close ({error:.0e})"


def method(row: Row) -> str:
    return f"{row['method']} {row['point']}".strip()


def environment(rows: Rows) -> str:
    """Where the rows were measured: one line for every setting that occurs."""
    found: dict[str, int] = {}
    for row in rows.all:
        if "versions" in row:
            versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items() if v != "missing")
            machine = row["machine"]
            text = (
                f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; "
                f"{row['threads']} thread(s) a cell; {row['device']}; {versions}."
            )
            found[text] = found.get(text, 0) + 1
    return "\n".join(f"- {text} ({count} rows)" for text, count in found.items())


def methods_used(rows: Rows) -> str:
    """What each method is, and how its best honest use was made sure of."""
    from benchmarks import methods as known

    names = {row["method"] for row in rows.all}
    lines = [[m.name, m.about] for m in known.METHODS.values() if m.name in names]
    about = """
Every method runs the same step (the same weights, batches, seeds and threads, float32), in its
upstream's recommended form. Checkpointing by hand is run eagerly and compiled, since compiling
lowers its peak. torch's budget is tried at several ratios, since its peak isn't monotone in the
ratio. Compiled peers draw eager's random numbers, so that their gradients can be compared. The
tables take each peer's fastest row within a peak, and pass over rows with wrong gradients.
"""
    return section("How each method is run", about, ("method", "what it is"), lines)


def not_run(rows: Rows) -> str:
    """The cells without figures, and why."""
    lines = [
        [row["model"], method(row), row["kind"], row["status"], one_line(row["reason"])]
        for row in rows.all
        if row["status"] != "ok"
    ]
    about = "`unavailable`: the method says that it can't; `failed`: it broke."
    columns = ("model", "method", "kind", "status", "reason")
    return section("Cells without figures", about, columns, lines)


def one_line(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "/")
    return flat if len(flat) <= 200 else flat[:197] + "..."
