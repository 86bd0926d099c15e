"""Inductor's kernels under plans, beside plain `torch.compile` on the same device."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import fxremat
from benchmarks import zoo
from benchmarks.cuda.job import Job, Rows
from benchmarks.cuda.needs import needs_of
from benchmarks.inductor import OURS, Variant, least_bytes, make, row_of
from benchmarks.zoo import Workload

ROUNDS = 10
PEERS = ("torch 0.5", "compile(checkpoint)")

Made = dict[str, Variant]


def jobs(models: Mapping[str, Mapping[str, int]], device: str, size: str) -> Iterator[Job]:
    """A job a model and budget. The first of a model's compiles it plainly, too."""
    made: Made = {}  # of one model at a time: they hold the device's memory
    variants = (*OURS, *PEERS) if size == "cuda" else OURS[:2]
    for model, numbers in models.items():
        for variant in variants:
            build = functools.partial(workload, model, numbers, device, size)
            run = functools.partial(row, made, model, variant, build)
            yield Job(f"{model}|{variant}", run, model, needs_of(model))


def workload(model: str, numbers: Mapping[str, int], device: str, size: str) -> Workload:
    return zoo.get(model).make(size, **numbers).to(device)


def row(made: Made, model: str, variant: str, build: Any, _rows: Rows) -> Mapping[str, Any]:
    """`made` has plain's, by the model, and the first of ours, whose kernels the others run."""
    if model not in made:
        made.clear()
        made[model] = Variant.of("plain", build(), make("plain", 0))
    plain = made[model]
    within = least_bytes(build()) if variant == "floor" else plain.peak_bytes
    try:
        ours = Variant.of(variant, build(), make(variant, within))
    except fxremat.BudgetInfeasible as error:
        return {"status": "below the floor", "floor_bytes": error.floor_bytes}
    is_ours = variant in OURS
    kernels = made.setdefault("kernels", ours).bits if is_ours else None
    plain.seconds.clear()
    for _ in range(ROUNDS):
        plain.time_step()
        ours.time_step()
    found = row_of(ours, plain, kernels)
    return {
        **found,
        "model": model,
        # What peers compute is in their rows, and no fault of this project's.
        "bitwise": found["has_plain_bits"] or not is_ours,
        "reference": "torch.compile",
        "comparison": {"relative_error": found["gradient_error"]},
        # With nothing to recompute, what it takes is its budget.
        "budget_bytes": None if variant == "kernels" else found.get("budget_bytes"),
        "measured_peak_bytes": found["peak_bytes"],
        "plain_peak_bytes": plain.peak_bytes,
        "first_step_s": ours.first_s,
        "plain_first_step_s": plain.first_s,
    }
