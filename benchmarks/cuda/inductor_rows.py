"""Inductor's kernels under plans, beside plain `torch.compile` on the same device."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import fxremat
from benchmarks import zoo
from benchmarks.cuda.job import Job, Rows
from benchmarks.inductor import OURS, Make, Variant, least_bytes, make, row_of
from benchmarks.zoo import Workload

ROUNDS = 10

Made = dict[str, Variant]


def jobs(models: Mapping[str, Mapping[str, int]], device: str, size: str) -> Iterator[Job]:
    """A job a model and budget. The first of a model's compiles it plainly, too."""
    made: Made = {}  # of one model at a time: they hold the device's memory
    variants = OURS if size == "cuda" else OURS[:2]
    for model, numbers in models.items():
        for variant in variants:
            build = functools.partial(workload, model, numbers, device, size)
            run = functools.partial(row, made, model, variant, build)
            yield Job(f"{model}|{variant}", run, model)


def workload(model: str, numbers: Mapping[str, int], device: str, size: str) -> Workload:
    return zoo.get(model).make(size, **numbers).to(device)


def row(made: Made, model: str, variant: str, build: Any, _rows: Rows) -> Mapping[str, Any]:
    """`made` has plain's and the first of ours, whose kernels the others run."""
    if made.get("plain") is None or made["plain"].name != f"{model} plain":
        made.clear()
        made["plain"] = Variant.of(f"{model} plain", build(), make("plain", 0))
    plain = made["plain"]
    within = least_bytes(build()) if variant == "floor" else plain.peak_bytes
    how: Make = make(variant, within)
    try:
        ours = Variant.of(variant, build(), how)
    except fxremat.BudgetInfeasible as error:
        return {"status": "below the floor", "floor_bytes": error.floor_bytes}
    made.setdefault("kernels", ours)
    plain.seconds.clear()
    for _ in range(ROUNDS):
        plain.time_step()
        ours.time_step()
    found = row_of(ours, plain, made["kernels"].bits)
    error = {"relative_error": found["gradient_error"]}
    return {
        **found,
        "model": model,
        "bitwise": found["has_plain_bits"],
        "reference": "torch.compile",
        "comparison": error,
        # With nothing to recompute, what it takes is its budget.
        "budget_bytes": max(found["budget_bytes"], plain.peak_bytes if variant == "kernels" else 0),
        "measured_peak_bytes": found["peak_bytes"],
        "plain_peak_bytes": plain.peak_bytes,
        "first_step_s": ours.first_s,
        "plain_first_step_s": plain.first_s,
    }
