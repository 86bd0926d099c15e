"""The questions that the report answers, one table each."""

from __future__ import annotations

import math
from collections.abc import Iterator

from benchmarks.records import Row
from benchmarks.report.rows import (
    Rows,
    extra,
    fastest_within,
    figure,
    is_ours,
    lowest,
    plan_extra,
    planned_within,
    timed,
)
from benchmarks.report.tables import (
    gradients,
    markdown,
    mebibytes,
    method,
    percent,
    ratio,
    section,
)


def sections(rows: Rows) -> Iterator[str]:
    """Every question for which there are rows."""
    yield at_peak_of_checkpointing(rows)
    yield at_half(rows)
    yield lowest_peaks(rows)
    yield activations(rows)
    yield solvers(rows)
    yield predicted(rows)
    yield sequence(rows)
    yield batches(rows)
    yield clipping(rows)
    for model in rows.models():
        yield everything(rows, model)


def overview(rows: Rows) -> str:
    """One table of all models and methods, for a page that shows no more than that."""
    lines = [
        [f"{model}, {method(row)}", mebibytes(row["peak_bytes"]), ratio(row), gradients(row)]
        for model in rows.models()
        for row in sorted(timed(rows.steps(model)), key=lambda r: -r["peak_bytes"])
    ]
    return markdown(("model, method", "peak, MiB", "time / eager", "gradients"), lines)


def at_most(rows: Rows, model: str, peak_bytes: float | None) -> list[str] | None:
    """fxremat's and the best peer's extra time within a peak."""
    if peak_bytes is None:
        return None
    best = fastest_within(rows.steps(model), peak_bytes)
    ours = planned_within(rows.steps(model), peak_bytes)
    peers = [row for row in best.values() if not is_ours(row)]
    peer = min(peers, key=extra, default=None)
    return [
        mebibytes(peak_bytes),
        "-" if ours is None else f"{percent(extra(ours))} ({ours['point']})",
        "-" if peer is None else f"{percent(extra(peer))} ({method(peer)})",
    ]


def at_peak_of_checkpointing(rows: Rows) -> str:
    lines: list[list[str]] = []
    for model in rows.models():
        block = rows.step(model, "checkpoint-block")
        if block is None or "time" not in block:
            continue
        found = at_most(rows, model, block["peak_bytes"])
        ours = planned_within(rows.steps(model), block["peak_bytes"])
        if found is None:
            continue
        share = "-"
        if ours is not None and extra(block) > 0:
            share = f"{extra(ours) / extra(block):.2f}"
        lines.append([model, *found, percent(extra(block)), share])
    about = (
        "The peak is what `torch.utils.checkpoint` around every block reaches. For each: the extra "
        "time over eager within that peak, with right gradients and buffers: of the plan made for "
        "it, and of the fastest peer's row."
    )
    columns = ("model", "peak, MiB", "fxremat", "best peer", "checkpoint-block", "ours / its")
    return section("At the peak of per-block checkpointing", about, columns, lines)


def at_half(rows: Rows) -> str:
    lines: list[list[str]] = []
    for model in rows.models():
        for name, label in (("eager", "eager's"), ("aot_default", "the untouched graph's")):
            base = rows.step(model, name)
            peak = figure(base, "peak_bytes")
            found = at_most(rows, model, None if peak is None else peak / 2)
            if found is not None:
                lines.append([model, label, *found])
    about = (
        "The extra time over eager within half of a peak, with right gradients and buffers: of the "
        "plan made for it, and of the fastest peer's row."
    )
    columns = ("model", "half of", "peak, MiB", "fxremat", "best peer")
    return section("At half of the step memory", about, columns, lines)


def lowest_peaks(rows: Rows) -> str:
    lines: list[list[str]] = []
    for model in rows.models():
        eager = rows.step(model, "eager")
        found = [lowest(rows.steps(model), ours=ours) for ours in (True, False)]
        cells = [
            "-"
            if row is None
            else f"{mebibytes(row['peak_bytes'])} ({method(row)}, {percent(extra(row))})"
            for row in found
        ]
        lines.append([model, mebibytes(figure(eager, "peak_bytes")), *cells])
    about = "The lowest measured peak with right gradients, and its extra time over eager."
    columns = ("model", "eager, MiB", "fxremat, MiB", "lowest peer, MiB")
    return section("The lowest peak", about, columns, lines)


def activations(rows: Rows) -> str:
    lines = [
        [
            model,
            method(row),
            mebibytes(row["peak_bytes"]),
            mebibytes(row["saved_bytes"]),
            ratio(row),
        ]
        for model in ("mlp-relu", "mlp-gelu")
        for row in timed(rows.steps(model))
        if row["method"] in ("eager", "aot_default", "aot_eager", "checkpoint-block", "fxremat")
    ]
    about = (
        "ReLU's backward needs only its output, which the next layer saves anyway; GELU's needs "
        "its input as well. The same deep MLP with the one and the other."
    )
    columns = ("model", "method", "peak, MiB", "saved, MiB", "time / eager")
    return section("ReLU against GELU", about, columns, lines)


def solvers(rows: Rows) -> str:
    lines = [
        [
            model,
            row["point"],
            row["method"],
            facts["solver"],
            str(facts["ops"]),
            mebibytes(facts["budget_bytes"]),
            percent(facts["predicted_extra"], 2),
            percent(facts["lower_bound_extra"], 2),
            percent(extra(row)) if "time" in row else "-",
            f"{facts['solve_s']:.1f}",
        ]
        for model in rows.models()
        for row in sorted(rows.steps(model), key=lambda r: (r["point"], r["method"]))
        if is_ours(row) and (facts := row["facts"])
    ]
    about = (
        "Predicted extra time of each solver's plan over the graph's own time, its bound, and the "
        "extra time over eager as measured. A floor is each solver's own."
    )
    columns = (
        "model",
        "point",
        "method",
        "plan by",
        "ops",
        "budget, MiB",
        "predicted",
        "bound",
        "measured",
        "solve, s",
    )
    return section("Solvers", about, columns, lines)


def predicted(rows: Rows) -> str:
    lines: list[list[str]] = []
    for model in rows.models():
        base = rows.untouched(model)
        for row in rows.steps(model):
            if row["method"] != "fxremat":
                continue
            facts = row["facts"]
            gap = row["peak_bytes"] / facts["predicted_peak_bytes"] - 1
            measured = "-"
            if base is not None and "time" in row:
                median, low, high = plan_extra(row, base)
                measured = f"{percent(median)} [{percent(low)}, {percent(high)}]"
            within = "yes" if row["peak_bytes"] <= facts["budget_bytes"] else "**no**"
            lines.append(
                [
                    model,
                    row["point"],
                    mebibytes(facts["budget_bytes"]),
                    mebibytes(facts["predicted_peak_bytes"]),
                    mebibytes(row["peak_bytes"]),
                    percent(gap, 3),
                    within,
                    percent(facts["predicted_extra"]),
                    measured,
                    gradients(row),
                ]
            )
    about = (
        "Extra time here is over fxremat with nothing recomputed (budget 1), the plan's own base; "
        "in brackets the middle half of the rounds."
    )
    columns = (
        "model",
        "point",
        "budget, MiB",
        "predicted peak",
        "measured peak",
        "gap",
        "within",
        "predicted time",
        "measured time",
        "gradients",
    )
    return section("Predicted and measured", about, columns, lines)


def sequence(rows: Rows) -> str:
    found = [
        row
        for row in rows.of_kind("step", plain=False)
        if row["numbers"].get("length")
        and row["method"] in ("eager", "checkpoint-block", "fxremat")
    ]
    lines: list[list[str]] = []
    for name in ("eager", "checkpoint-block", "fxremat"):
        mine = sorted(
            (r for r in found if r["method"] == name), key=lambda r: r["numbers"]["length"]
        )
        for before, row in zip([None, *mine], mine, strict=False):
            lines.append(
                [
                    method(row),
                    str(row["numbers"]["length"]),
                    mebibytes(row["saved_bytes"]),
                    slope(before, row, "saved_bytes"),
                    mebibytes(row["peak_bytes"]),
                    slope(before, row, "peak_bytes"),
                    gradients(row),
                ]
            )
    about = (
        "GPT-2 with unfused attention, one sequence. Saved is what forward leaves for backward, "
        "and the slope that of its logarithm against the length's: 2 where L x L matrices are "
        "saved, 1 where none is. Block checkpoints save the causal mask, which is one. fxremat's "
        "budget is 1.05 times its floor, and the floor is the L x L matrices that one layer needs "
        "at once: what is saved may take as much, whatever it is, so the budget bounds it to one "
        "layer's, not to slope 1."
    )
    columns = ("method", "length", "saved, MiB", "slope", "peak, MiB", "slope", "gradients")
    return section("Saved bytes against sequence length", about, columns, lines)


def slope(before: Row | None, row: Row, field: str) -> str:
    if before is None:
        return ""
    rise = math.log(row[field] / before[field])
    return f"{rise / math.log(row['numbers']['length'] / before['numbers']['length']):.2f}"


def batches(rows: Rows) -> str:
    lines: list[list[str]] = []
    for row in rows.of_kind("batch", plain=False):
        start = row["numbers"]["batch"]
        lines.append(
            [
                row["model"],
                mebibytes(row["budget_bytes"]),
                row["method"],
                str(row["largest_batch"]),
                str(row["first_not_fitting"]),
                f"{row['largest_batch'] / start:.2f}",
            ]
        )
    about = (
        "The room is eager's peak at the batch that the other tables use; found by doubling and "
        "bisection to 1/16, each batch measured."
    )
    columns = ("model", "room, MiB", "method", "largest batch", "does not fit", "against eager's")
    return section("The largest batch in a fixed budget", about, columns, lines)


def clipping(rows: Rows) -> str:
    lines = [
        [
            row["model"],
            method(row),
            "identical" if row["norms_identical"] else f"{row['largest_norm_error']:.1e}",
            str(len(row["eager_clipped_steps"])),
            str(len(row["clipped_steps"])),
            str(row["decisions_differ"]),
        ]
        for row in rows.of_kind("clip")
    ]
    about = "20 training steps with dropout, clipped at the median norm of an unclipped run."
    columns = (
        "model",
        "method",
        "norms: largest relative error",
        "eager clips",
        "it clips",
        "decisions that differ",
    )
    return section("Gradient clipping", about, columns, lines)


def everything(rows: Rows, model: str) -> str:
    lines: list[list[str]] = []
    for row in sorted(timed(rows.steps(model)), key=lambda r: -r["peak_bytes"]):
        compile_s = row["facts"].get("compile_s", 0) + row["first_step_s"]
        lines.append(
            [
                method(row),
                mebibytes(row["peak_bytes"]),
                mebibytes(row["saved_bytes"]),
                ratio(row),
                gradients(row),
                f"{compile_s:.1f}",
            ]
        )
    eager = rows.step(model, "eager")
    resident = mebibytes(figure(eager, "resident_bytes"))
    about = (
        f"{zoo_source(model)}. Parameters and buffers, resident beside the peak: {resident} MiB."
    )
    columns = ("method", "peak, MiB", "saved, MiB", "time / eager", "gradients", "first step, s")
    return section(model, about, columns, lines)


def zoo_source(model: str) -> str:
    from benchmarks import zoo

    return zoo.get(model).source
