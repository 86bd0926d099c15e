"""The largest batch whose step fits a given number of bytes, found by doubling and bisection."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.kinds.step import prepare
from benchmarks.measure import step_peak
from benchmarks.methods.base import Unavailable

if TYPE_CHECKING:
    from benchmarks.cell import Cell


def run(cell: Cell, effort: Mapping[str, Any]) -> dict[str, Any]:
    """`budget_bytes` is the room; methods without a budget are measured, fxremat is given it."""
    room = cell.budget_bytes
    if room is None:
        raise ValueError("a batch cell needs budget_bytes")
    tried: dict[int, int | None] = {}

    def fits(batch: int) -> bool:
        if batch not in tried:
            tried[batch] = peak_at(cell, batch)
        peak = tried[batch]
        return peak is not None and peak <= room

    low, high = 0, cell.numbers["batch"]
    while fits(high) and len(tried) < effort["batch_tries"]:
        low, high = high, 2 * high
    while high - low > max(1, low // 16) and len(tried) < effort["batch_tries"]:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if low == 0:
        raise Unavailable("not even the first batch fits")
    return {"largest_batch": low, "first_not_fitting": high, "tried": tried}


def peak_at(cell: Cell, batch: int) -> int | None:
    """The measured peak at that batch; None where the method says that it can't."""
    torch._dynamo.reset()
    sized = dataclasses.replace(cell, numbers={**cell.numbers, "batch": batch})
    try:
        workload, _, _, step = prepare(sized)
    except Unavailable as error:
        if "infeasible" in str(error):
            return None
        raise
    step.run(workload.batch(0))
    return step_peak(step, workload.batch(0), cell.device)
