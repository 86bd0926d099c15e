"""A step's peak by both of the allocator's counts: what it handed out, and what it was asked for.

CUDA's caching allocator rounds to blocks, and hands out a cached block whole where what is left of
it is small. The plan knows the rounding, not which blocks happen to be cached, so the two counts
tell an error of the plan from the cache's doing. On the CPU they are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from benchmarks.measure import Step
from benchmarks.zoo import Batch
from fxremat.measure import peak as measured


@dataclass(frozen=True)
class Peaks:
    """The most bytes at once above the level at entry; `requested_bytes` is None where an
    allocator doesn't count what it is asked for."""

    allocated_bytes: int
    requested_bytes: int | None


def peaks(fn: Callable[[], object], device: str = "cpu") -> Peaks:
    """Both peaks of one run of `fn`, which must have been warmed up."""
    if torch.device(device).type != "cuda":
        peak = measured.measure_peak(fn, device=device).peak_bytes
        return Peaks(peak, peak)
    before = torch.cuda.memory_stats(device)
    allocated = measured.measure_peak(fn, device=device).peak_bytes
    return Peaks(allocated, requested_above(before, torch.cuda.memory_stats(device)))


def step_peaks(step: Step, batch: Batch, device: str = "cpu") -> Peaks:
    """Both peaks of one step with its gradients cleared."""
    step.clear()
    found = peaks(lambda: step.run(batch), device)
    step.clear()
    return found


def requested_above(before: Mapping[str, int], after: Mapping[str, int]) -> int | None:
    """The most bytes that the allocator was asked for above the level before, by its counters."""
    level = before.get("requested_bytes.all.current")
    peak = after.get("requested_bytes.all.peak")
    return None if level is None or peak is None else peak - level
