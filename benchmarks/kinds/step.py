"""A step measured every way: peak, saved bytes, gradients against eager, time against eager."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import methods, zoo
from benchmarks.counters import step_peaks
from benchmarks.measure import (
    Comparison,
    Step,
    check_measurement,
    compare,
    resident_bytes,
    saved_bytes,
    step_peak,
    step_timeline,
    thinned,
    time_ratio,
)
from benchmarks.methods.base import Prepared, Task

if TYPE_CHECKING:
    from benchmarks.cell import Cell

CLOSE = 1e-4  # float32 sums taken in another order differ by less than this
OWN_ERRORS = 4  # the largest of a few differences of eager from itself is a small sample


def run(cell: Cell, effort: Mapping[str, Any]) -> dict[str, Any]:
    check_measurement(cell.device)
    workload, reference, prepared, step = prepare(cell)
    batch = workload.batch
    start = time.perf_counter()
    step.run(batch(0))
    first_step_s = time.perf_counter() - start
    reference.run(batch(0))

    outcome = compare(reference, step, batch, effort["compare_steps"], cell.device)
    own_error = eager_error(reference, batch, effort["compare_steps"], cell.device)
    found = [step_peaks(step, batch(i), cell.device) for i in (0, 1)]
    row: dict[str, Any] = {
        "first_step_s": first_step_s,
        "resident_bytes": resident_bytes(reference.module),
        "eager_peak_bytes": step_peak(reference, batch(0), cell.device),
        "peak_bytes": max(peaks.allocated_bytes for peaks in found),
        "saved_bytes": saved_bytes(step, batch(0), cell.device),
        "comparison": asdict(outcome),
        "verdict": verdict(outcome, own_error),
        "facts": dict(prepared.facts()),
    }
    if cell.device != "cpu":
        asked = [peaks.requested_bytes for peaks in found]
        row["requested_peak_bytes"] = None if None in asked else max(asked)
        row["eager_error"] = own_error
    if not outcome.gradients_equal and cell.method != "eager":
        to_graph = against_untouched_graph(workload, step, batch, effort, cell.device)
        row["equals_aot_eager"] = to_graph.equal
        if cell.device != "cpu":
            row["aot_eager_error"] = to_graph.relative_error
    if effort.get("timeline") and cell.device == "cpu":
        row["timeline"] = thinned(step_timeline(step, batch(0)), 400)
    if effort["rounds"]:
        ratio = time_ratio(
            reference, step, batch, effort["rounds"], cell.device, effort["timing_limit_s"]
        )
        row["time"] = asdict(ratio)
    return row


def prepare(cell: Cell) -> tuple[zoo.Workload, Step, Prepared, Step]:
    """The workload, the eager reference, and the method's step on a copy of the model."""
    workload = zoo.get(cell.model).make(cell.size, cell.seed, **cell.numbers)
    if cell.device != "cpu":
        workload = workload.to(cell.device, autocast=torch.bfloat16)
    reference = workload.step_module()
    module = copy.deepcopy(reference)
    task = Task(workload, module, cell.point, cell.budget_bytes)
    prepared = methods.get(cell.method).prepare(task)
    return workload, Step(reference, reference), prepared, Step(module, prepared.call)


def eager_error(reference: Step, batch: Any, steps: int, device: str) -> float:
    """By how much eager differs from itself: on CUDA its kernels may sum up in any order."""
    if device == "cpu":
        return 0.0
    twin = copy.deepcopy(reference.module)
    return compare(reference, Step(twin, twin), batch, steps, device).relative_error


def verdict(outcome: Comparison, own_error: float = 0.0) -> str:
    """`bitwise`, `close` (the order of float sums), or `wrong`.

    `own_error` is what eager's gradients differ by from run to run; several times that is still
    the order of sums, which also shows in running statistics then.
    """
    if outcome.equal:
        return "bitwise"
    fine = outcome.relative_error < max(CLOSE, OWN_ERRORS * own_error)
    return "close" if fine and (outcome.buffers_equal or own_error > 0) else "wrong"


def against_untouched_graph(
    workload: zoo.Workload, step: Step, batch: Any, effort: Mapping[str, Any], device: str
) -> Comparison:
    """Whether the step leaves bit for bit what AOTAutograd's graph does, where eager's differs.

    By the partitioner that recomputes nothing: the other one takes torch's memory budget from the
    same settings as the method that is being judged, and would draw its dropout masks anew as well.
    """
    module = copy.deepcopy(workload.step_module())
    call = methods.get("aot_default").prepare(Task(workload, module)).call
    for mine, theirs in zip(step.module.buffers(), module.buffers(), strict=True):
        theirs.copy_(mine)
    return compare(Step(module, call), step, batch, effort["compare_steps"], device)
