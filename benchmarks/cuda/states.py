"""What a row may say: the states of a cell, and what a row with figures is worth."""

from __future__ import annotations

from benchmarks.records import Row

FINISHED = ("ok", "failed", "unavailable", "below the floor")
"""These aren't run again. The others: `waiting` (known, not begun), `running`, `cut off`."""

RESTART = 75  # a worker's exit code: rows are kept, go on in a new process

GOOD = ("good", "over, and said", "unavailable", "below the floor", "waiting", "cut off")
"""Words of `judged` that needn't make whoever ran it look."""

OWN_ERRORS = 4  # as benchmarks.kinds.step: eager against itself is a small sample


def judged(row: Row) -> str:
    """`good`, or what is wrong with it, in words; never for `unavailable` or unfinished rows."""
    if row["status"] in ("failed", "unavailable", "waiting", "running", "cut off"):
        return str(row["status"])
    if row["status"] == "below the floor":
        return "below the floor"
    faults: list[str] = []
    if "bitwise" in row and not row["bitwise"]:
        own = row.get("eager_error", 0.0)
        if row.get("eager_repeats", True) or row["comparison"]["relative_error"] > OWN_ERRORS * own:
            faults.append("other bits")
    if row.get("verdict") == "wrong" and row["method"].startswith("fxremat"):
        allowed = OWN_ERRORS * row.get("eager_error", 0.0)
        if not row.get("equals_aot_eager") and not row.get("aot_eager_error", 1.0) <= allowed:
            faults.append("wrong gradients")
    budget, peak = budget_of(row), row.get("measured_peak_bytes", row.get("peak_bytes"))
    if budget is not None and peak is not None and peak > budget:
        # By the rests that the allocator leaves, which no plan can be freed of at the floor.
        faults.append("over, and said" if row.get("said_over") else "over the budget")
    return ", ".join(faults) or "good"


def budget_of(row: Row) -> int | None:
    """The bytes that a row's method was given, where it keeps a budget in bytes."""
    if "measured_peak_bytes" in row:
        return row["budget_bytes"]
    if row.get("point") == "1":  # all that it takes with nothing recomputed, whatever that is
        return None
    return row.get("facts", {}).get("budget_bytes")


STICKY = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "AcceleratorError", "device-side assert")


def is_sticky(reason: str) -> bool:
    """Whether a failure leaves the process's device unusable, so that the rest needs a new one.

    Running out of memory does not: torch says "CUDA out of memory" of it.
    """
    return any(mark in reason for mark in STICKY)


def is_bad(row: Row) -> bool:
    """A row that should make whoever ran it look."""
    return judged(row) not in GOOD
