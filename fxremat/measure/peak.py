"""Measured memory: what the allocator was really asked for while a function ran.

On CPU from the allocator's own events, as the profiler records them; on CUDA from the caching
allocator's counters. Nothing here looks at a graph: this is what predictions are held against.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from fxremat import torch_hooks
from fxremat.errors import FxrematError
from fxremat.measure.marks import mark
from fxremat.measure.recorder import (
    CudaRecorder,
    Levels,
    counters_kept,
    interrupt_recording,
    levels_of,
    quiet_profiler,
)


class ProfilerBusyError(FxrematError):
    """Another torch profiler is running; only one can."""


@dataclass(frozen=True)
class PeakMeasurement:
    """Memory allocated while a function ran, in bytes above the level at its entry.

    `peak_bytes` is the most that was allocated at once, `end_bytes` what was still allocated when
    it returned (its result excluded if dropped). `timeline_bytes` is the level after every
    allocation and free on CPU, empty on CUDA.
    """

    peak_bytes: int
    end_bytes: int
    timeline_bytes: tuple[int, ...] = ()


def measure_peak(
    function: Callable[[], Any], *, device: str | torch.device = "cpu"
) -> PeakMeasurement:
    """Run `function` once and measure the memory that it allocates on `device`.

    Run it a few times before: compilation and first calls allocate more than later ones. To
    measure a training step, set gradients to None first, so that they count as the step's.
    Python's collector of cycles waits meanwhile: it would free at any moment what was made before.
    On the CPU it sees the calling thread and autograd's, no other thread that `function` starts.
    CUDA figures are whole 512-byte blocks, and the call resets torch's peak statistics. Raises
    `ProfilerBusyError` where a profiler is running already.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        with counters_kept(), _nothing_collected():
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            function()
            torch.cuda.synchronize(device)
        return PeakMeasurement(
            peak_bytes=torch.cuda.max_memory_allocated(device) - before,
            end_bytes=torch.cuda.memory_allocated(device) - before,
        )
    level = peak = 0
    timeline: list[int] = []
    for nbytes in _cpu_events(function):
        level += nbytes
        peak = max(peak, level)
        timeline.append(level)
    return PeakMeasurement(peak, level, tuple(timeline))


def measure_moments(function: Callable[[Callable[[], None]], Any], device: torch.device) -> Levels:
    """Run `function` once, which calls what it is given at each moment to measure the level at.

    Raises `ProfilerBusyError` where a profiler is running already.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        with counters_kept(), _nothing_collected():
            recorder = CudaRecorder(device)
            function(recorder.mark)
            return recorder.finish()
    return levels_of(_cpu_events(lambda: function(lambda: mark(device))))


def _cpu_events(function: Callable[[], Any]) -> list[int]:
    """The allocator's events on the CPU, of this thread and autograd's, in order of time."""
    interrupt_recording()
    if torch_hooks.profiler_is_active():
        raise ProfilerBusyError(
            "memory can't be measured while a torch profiler is running: call measure_peak before "
            "the profiler starts, or after it stopped"
        )
    with (
        quiet_profiler(),
        _nothing_collected(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded,
    ):
        function()
    return torch_hooks.memory_events(recorded)


@contextmanager
def _nothing_collected() -> Generator[None]:
    """A tensor of before, in a cycle, isn't freed while something else is measured."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
