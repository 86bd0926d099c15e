"""What fxremat is meant to reach, beside what the rows say: one table, shortfalls marked."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.records import Row
from benchmarks.report.rows import (
    Rows,
    extra,
    lowest,
    plan_extra,
    planned_within,
    timed,
)
from benchmarks.report.tables import mebibytes, percent, section

TRANSFORMERS = (
    *("gpt2-eager", "gpt2-sdpa", "bert-eager", "bert-sdpa", "t5"),
    *("llama-eager", "llama-sdpa", "vit-eager", "vit-sdpa"),
)
AT_HALF = {
    **dict.fromkeys(("gpt2-eager", "bert-eager", "t5", "llama-eager", "vit-eager"), 0.12),
    **dict.fromkeys(("resnet50", "unet"), 0.10),
}
PEAK_GAP, TIME_GAP = 0.005, 0.05

Line = list[str]


def targets(rows: Rows) -> str:
    """Every target for which there are rows."""
    lines = [
        *at_peak_of_checkpointing(rows),
        *at_half(rows),
        *lowest_peak(rows),
        *predictions(rows),
    ]
    about = (
        "Extra time is over eager, the middle half of the rounds in brackets. The bound is what "
        "any schedule of the graph's ops must take at that budget, by the op costs that the plan "
        "was made with; like the prediction it is put over eager by what the graph takes with "
        "nothing recomputed (`fxremat 1`). A target below the bound asks for more than any plan "
        "can give if the op costs are right; what the prediction lies above the bound is at most "
        "the solver's fault."
    )
    columns = ("target", "model", "asked", "reached", "predicted", "bound", "holds")
    return section("Targets", about, columns, lines)


def at_peak_of_checkpointing(rows: Rows) -> Iterator[Line]:
    for model in rows.models():
        block = rows.step(model, "checkpoint-block")
        if block is None or "time" not in block or extra(block) <= 0:
            continue
        share = 0.5 if model in TRANSFORMERS else 1.0
        yield _time_line(
            "at checkpoint-block's peak", model, rows, block["peak_bytes"], share * extra(block)
        )


def at_half(rows: Rows) -> Iterator[Line]:
    for model in rows.models():
        base = rows.step(model, "eager")
        if base is not None and model in AT_HALF:
            yield _time_line(
                "at half of eager's peak", model, rows, base["peak_bytes"] / 2, AT_HALF[model]
            )


def _time_line(target: str, model: str, rows: Rows, peak_bytes: float, most: float) -> Line:
    row = planned_within(rows.steps(model), peak_bytes)
    asked = f"{percent(most)} at {mebibytes(peak_bytes)} MiB"
    if row is None:
        below = rows.below_floor(model, peak_bytes)
        return [target, model, asked, "below the floor" if below else "not run", "-", "-", "-"]
    time, facts = row["time"], row["facts"]
    base = rows.untouched(model)
    untouched = 1.0 if base is None else base["time"]["median"]
    return [
        target,
        model,
        asked,
        f"{percent(extra(row))} [{percent(time['low'] - 1)}, {percent(time['high'] - 1)}]",
        percent((1 + facts["predicted_extra"]) * untouched - 1),
        percent((1 + facts["lower_bound_extra"]) * untouched - 1),
        _verdict(extra(row) <= most),
    ]


def lowest_peak(rows: Rows) -> Iterator[Line]:
    for model in rows.models():
        ours, peer = (lowest(rows.steps(model), ours=ours) for ours in (True, False))
        if ours is None or peer is None:
            continue
        yield [
            "lowest peak below every peer's",
            model,
            f"under {mebibytes(peer['peak_bytes'])} MiB",
            f"{mebibytes(ours['peak_bytes'])} MiB",
            "-",
            "-",
            _verdict(ours["peak_bytes"] < peer["peak_bytes"]),
        ]


def predictions(rows: Rows) -> Iterator[Line]:
    peaks: list[float] = []
    times: list[bool] = []
    for row, base in _with_base(rows):
        facts = row["facts"]
        peaks.append(abs(row["peak_bytes"] / facts["predicted_peak_bytes"] - 1))
        _, low, high = plan_extra(row, base)
        times.append(low - TIME_GAP <= facts["predicted_extra"] <= high + TIME_GAP)
    if not peaks:
        return
    count = len(peaks)
    good = sum(gap <= PEAK_GAP for gap in peaks)
    yield [
        "measured peak is the predicted one",
        "all",
        f"within {percent(PEAK_GAP)}",
        f"{good} of {count} rows, at most {100 * max(peaks):.3f} % off",
        "-",
        "-",
        _verdict(good == count),
    ]
    good = sum(times)
    yield [
        "measured extra time is the predicted one",
        "all",
        "within 5 points of the middle half of the rounds",
        f"{good} of {count} rows",
        "-",
        "-",
        _verdict(good == count),
    ]


def _with_base(rows: Rows) -> Iterator[tuple[Row, Row]]:
    """fxremat's timed rows, each beside its model's with nothing recomputed."""
    for model in rows.models():
        base = rows.untouched(model)
        if base is None:
            continue
        for row in timed(rows.steps(model)):
            if row["method"] == "fxremat" and row is not base:
                yield row, base


def _verdict(holds: bool) -> str:
    return "yes" if holds else "**no**"
