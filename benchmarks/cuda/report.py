"""A run's report: the machine, then a table a part, bad rows and what was not reached in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.cuda.states import FINISHED, budget_of, is_bad, judged
from benchmarks.records import Row

MIB = 2**20


def report(about: Mapping[str, Any], parts: Mapping[str, Sequence[Row]]) -> str:
    text = ["# On a CUDA device" if about["device"] != "cpu" else "# On the CPU", ""]
    text += [*machine_lines(about), ""]
    makers = {
        "tests": tests_table,
        "exactness": exactness_table,
        "graphs": graphs_table,
        "bench": bench_table,
        "inductor": inductor_table,
        "loops": loops_table,
        "estimate": estimate_table,
    }
    for part, rows in parts.items():
        text += [f"## {part}", "", f"{counts(rows)}.", ""]
        if any(row["status"] in FINISHED for row in rows):
            text += [*makers[part](rows), ""]
        text += said_of(rows)
    return "\n".join(text).rstrip() + "\n"


def counts(rows: Iterable[Row]) -> str:
    """`12 good, 1 failed, 3 waiting`."""
    found = Counter(judged(row) for row in rows)
    return ", ".join(f"{count} {name}" for name, count in found.items()) or "nothing was run"


def machine_lines(about: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    device = f"{about['device_name']}"
    if "capability" in about:
        device += f", capability {about['capability']}, driver {about['driver'] or 'unknown'}"
        device += f", {about['total_memory_bytes'] / 2**30:.1f} GiB"
    lines = [
        f"- device: {device}",
        f"- torch {about['torch']}, CUDA {about['cuda']}, cuDNN {about['cudnn']}",
        f"- {versions}",
        f"- commit {about['commit']}; sources {about['sources']}",
        f"- command: {' '.join(about['command'])}",
    ]
    if about["allocator"]:
        lines.append(f"- allocator: {about['allocator']}")
    return lines


def table(
    head: Sequence[str], rows: Sequence[Row], cells: Callable[[Row], Sequence[str]]
) -> list[str]:
    """The lines of a table of the rows that have figures."""
    return [*head, *(line(cells(row)) for row in rows if row["status"] == "ok")]


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def tests_table(rows: Sequence[Row]) -> list[str]:
    lines = ["| test | result | seconds | recorded |", "| --- | --- | ---: | --- |"]
    for row in rows:
        if row["status"] in FINISHED:
            said = ", ".join(f"{k} {v}" for k, v in row.get("figures", {}).items())
            name = row["key"].rpartition("::")[2]
            lines.append(f"| {name} | {judged(row)} | {row.get('wall_s', '')} | {said} |")
    return lines


def exactness_table(rows: Sequence[Row]) -> list[str]:
    head = (
        "| cell | result | reference | eager repeats | budget, MiB | planned | allocated "
        "| requested | error | seconds |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    )

    def cells(row: Row) -> Sequence[str]:
        return (
            row["key"].replace("|", " "),
            judged(row),
            row["reference"],
            {True: "yes", False: f"no, {row.get('eager_error', 0):.1e}"}[
                row.get("eager_repeats", True)
            ],
            mib(row["budget_bytes"]),
            mib(row["planned_peak_bytes"]),
            mib(row["measured_peak_bytes"]),
            mib(row.get("requested_peak_bytes")),
            f"{row['comparison']['relative_error']:.1e}",
            str(row["wall_s"]),
        )

    return table(head, rows, cells)


def graphs_table(rows: Sequence[Row]) -> list[str]:
    head = (
        "| step | result | graphs | reference | eager repeats | unplanned, MiB | budget | planned "
        "| allocated | error | step, ms | of the graphs unplanned | seconds |",
        "| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    )

    def cells(row: Row) -> Sequence[str]:
        explained = row.get("explained")
        planned = explained.get("planned_peak_bytes") if isinstance(explained, dict) else None
        return (
            row["key"].replace("|", " "),
            judged(row),
            str(row["graphs"]),
            row["reference"],
            "yes" if row.get("eager_repeats", True) else f"no, {row['eager_error']:.1e}",
            mib(row["baseline_peak_bytes"]),
            mib(row["budget_bytes"]),
            mib(planned),
            mib(row["measured_peak_bytes"]),
            f"{row['comparison']['relative_error']:.1e}",
            f"{1e3 * row['fxremat_s']:.2f}",
            f"{1e3 * row['reference_s']:.2f}",
            str(row["wall_s"]),
        )

    return table(head, rows, cells)


def bench_table(rows: Sequence[Row]) -> list[str]:
    head = (
        "| model, method | result | peak, MiB | requested | predicted | step, ms | time / eager "
        "| gradients | planning, s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    )

    def cells(row: Row) -> Sequence[str]:
        facts, time = row["facts"], row["time"]
        span = f"{time['median']:.3f} [{time['low']:.3f}, {time['high']:.3f}]"
        planning = facts.get("planning_s")
        return (
            f"{row['model']}, {row['method']} {row['point']}".rstrip(),
            judged(row),
            mib(row["peak_bytes"]),
            mib(row.get("requested_peak_bytes")),
            mib(facts.get("predicted_peak_bytes")),
            f"{1e3 * time['step_s']:.2f}",
            span,
            gradients(row),
            "" if planning is None else f"{planning:.1f}",
        )

    steps = [row for row in rows if row.get("kind") != "batch"]
    lines = table(head, steps, cells)
    batches = [row for row in rows if row["status"] == "ok" and row.get("kind") == "batch"]
    if batches:
        lines += ["", "The largest batch in what eager takes for the first:", ""]
        lines += ["| model, method | room, MiB | batch | eager's |", "| --- | ---: | ---: | ---: |"]
    for row in batches:
        room, first = mib(row["budget_bytes"]), row["numbers"]["batch"]
        name = f"{row['model']}, {row['method']}"
        lines.append(f"| {name} | {room} | {row['largest_batch']} | {first} |")
    return lines


def inductor_table(rows: Sequence[Row]) -> list[str]:
    head = (
        "| cell | result | plain torch.compile, MiB | budget | planned | allocated | step, ms "
        "| of plain's | predicted | first step, s | plain's | bits |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    )

    def cells(row: Row) -> Sequence[str]:
        error = row["comparison"]["relative_error"]
        return (
            row["key"].replace("|", " "),
            judged(row),
            mib(row["plain_peak_bytes"]),
            mib(row["budget_bytes"]),
            mib(row.get("planned_peak_bytes")),
            mib(row["measured_peak_bytes"]),
            f"{1e3 * row['step_s']:.2f}",
            f"{row['of_plain_time']:.3f}",
            f"{1 + row['predicted_extra']:.3f}" if "predicted_extra" in row else "",
            f"{row['first_step_s']:.1f}",
            f"{row['plain_first_step_s']:.1f}",
            "plain's" if row["has_plain_bits"] else f"others, {error:.1e}",
        )

    return table(head, rows, cells)


def loops_table(rows: Sequence[Row]) -> list[str]:
    head = (
        "| loop | result | plain, MiB | checkpoint, sqrt(n) | budget | planned | allocated "
        "| evaluations | time / plain | error |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    )

    def cells(row: Row) -> Sequence[str]:
        return (
            row["key"].replace("|", ", "),
            judged(row),
            mib(row["plain_peak_bytes"]),
            mib(row["checkpoint_peak_bytes"]),
            mib(row["budget_bytes"]),
            mib(row["planned_peak_bytes"]),
            mib(row["measured_peak_bytes"]),
            str(row["evaluations"]),
            f"{row['of_plain_time']:.2f}",
            f"{row['comparison']['relative_error']:.1e}",
        )

    return table(head, rows, cells)


def estimate_table(rows: Sequence[Row]) -> list[str]:
    lines: list[str] = []
    for row in rows:
        if row["status"] != "ok" or "said" not in row:
            continue
        lines += [
            f"Rates, beside those of the spec {row['spec']!r} at its usual shares:",
            "",
            "| rate | measured | said |",
            "| --- | ---: | ---: |",
        ]
        for name, value in row["measured"].items():
            lines.append(f"| {name} | {value:.3g} | {row['said'][name]:.3g} |")
        lines.append("")
    lines += [
        "| step | budget, MiB | peak estimated | planned | allocated | ms estimated | measured "
        "| extra estimated | measured |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        for point in row.get("points", ()):
            if "measured_s" not in point:
                continue
            whole = point["share"] is None
            cells = (
                row["model"],
                mib(point.get("budget")),
                mib(row["estimated_peak"]) if whole else "",
                mib(point.get("planned_peak")),
                mib(point["measured_peak"]),
                f"{1e3 * row['estimated_s']:.2f}" if whole else "",
                f"{1e3 * point['measured_s']:.2f}",
                "" if whole else f"{100 * point['estimated_extra']:.1f} %",
                "" if whole else f"{100 * point['measured_extra']:.1f} %",
            )
            lines.append(line(cells))
    return lines


def gradients(row: Row) -> str:
    """The verdict; where bits differ, by how much, and by how much eager differs from itself."""
    if row["verdict"] == "bitwise":
        return "bitwise"
    if row["comparison"]["gradients_equal"] and not row["comparison"]["buffers_equal"]:
        return "bitwise, buffers differ"
    own = row.get("eager_error", 0.0)
    text = f"{row['verdict']}, {row['comparison']['relative_error']:.0e} (eager {own:.0e})"
    return f"{text}, bitwise to AOTAutograd's graph" if row.get("equals_aot_eager") else text


def said_of(rows: Sequence[Row]) -> list[str]:
    """Why rows are bad or missing, a line each."""
    lines: list[str] = []
    for row in rows:
        name = row["key"].replace("|", " ")
        if row["status"] == "unavailable":
            lines.append(f"- {name}: not run: {one_line(row.get('reason', ''))}")
        elif row["status"] == "below the floor":
            lines.append(f"- {name}: below the floor, {mib(row['floor_bytes'])} MiB")
        elif row["status"] in ("waiting", "running", "cut off"):
            lines.append(f"- {name}: not reached in the time; the next run goes on with it")
        elif is_bad(row):
            budget = budget_of(row)
            why = row.get("reason") or f"budget {budget}, see its row"
            lines.append(f"- **{name}: {judged(row)}**: {one_line(why)}")
    return [*lines, ""] if lines else []


def one_line(text: str) -> str:
    return " ".join(text.split())[-600:]


def mib(nbytes: int | None) -> str:
    return "" if nbytes is None else f"{nbytes / MIB:.{1 if nbytes > MIB else 3}f}"
