"""Levels of allocated memory at moments of a step that goes on meanwhile.

On CUDA the caching allocator is asked. The CPU's has no counters: its events are noted, and marks
among them say where the moments are.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch

from fxremat import torch_hooks
from fxremat.measure.marks import mark, split_at_marks


@dataclass(frozen=True)
class Levels:
    """Bytes above the level at the start: at each mark, and the most from it to the next one."""

    at_mark: tuple[int, ...]
    peak_after: tuple[int, ...]


def levels_of(events: Sequence[int]) -> Levels:
    """The levels of a stream of events with marks in it; what comes before the first counts in."""
    before, *parts = split_at_marks(events)
    level = sum(before)
    at_mark: list[int] = []
    peaks: list[int] = []
    for part in parts:
        at_mark.append(level)
        peak = level
        for nbytes in part:
            level += nbytes
            peak = max(peak, level)
        peaks.append(peak)
    return Levels(tuple(at_mark), tuple(peaks))


class Recorder(Protocol):
    """Notes levels from its making on."""

    def mark(self) -> None:
        """Note a moment."""
        ...

    def finish(self) -> Levels:
        """The levels, which ends it. Not to be called within a backward on the CPU."""
        ...

    def abandon(self) -> None:
        """End it, whatever was noted."""
        ...


def start_recorder(device: torch.device, gives_way: Callable[[], bool]) -> Recorder | None:
    """A recorder of a device's memory that has begun; None where levels can't be noted now.

    On CUDA they can't while `counters_kept`. On the CPU they can't beside a profiler, beside a
    recorder in another thread, nor within a backward. A recording of something that has come to its
    end, or to nothing, gives way.

    `gives_way`, a method of what holds it, is called where something else wants to note events, as
    only one can in a thread: it finishes the recorder if it can, and says whether that may end.
    """
    if device.type == "cuda":
        if counters_are_kept():
            return None
        recorder = CudaRecorder(device)
        _counting[:] = [weakref.ref(recorder)]
        return recorder
    _interrupt(at_any_rate=False)
    if torch_hooks.profiler_is_active() or torch_hooks.in_backward():
        return None
    with _starting:
        if any(thread.is_alive() for thread in _left_running):
            return None
        if any(recorder.is_busy for reference, _ in _running if (recorder := reference())):
            return None
        recorder = CpuRecorder()
        _running[:] = [(weakref.ref(recorder), weakref.WeakMethod(gives_way))]
    return recorder


def interrupt_recording() -> None:
    """End the recording that runs in this thread, if there is one that can be ended now."""
    _interrupt(at_any_rate=True)


def _interrupt(*, at_any_rate: bool) -> None:
    here = threading.current_thread()
    if here in _left_running and not torch_hooks.in_backward():
        _left_running.remove(here)
        with quiet_profiler():
            torch_hooks.take_memory_events()
    for reference, method in _running:
        recorder, gives_way = reference(), method()
        if recorder is None or not recorder.is_busy or torch_hooks.in_backward():
            continue
        if recorder.thread is not here:
            continue
        if gives_way is None or gives_way() or at_any_rate:
            recorder.abandon()


@contextmanager
def counters_kept() -> Generator[None]:
    """CUDA's counters belong to who measures by them: recordings end, and none begins."""
    for reference in _counting:
        recorder = reference()
        if recorder is not None:
            recorder.abandon()
    _counted.append(None)
    try:
        yield
    finally:
        _counted.pop()


def counters_are_kept() -> bool:
    """Whether somebody measures by CUDA's counters now, whose peak must not be reset."""
    return bool(_counted)


# The recorder on CUDA that was started last, and one entry for everyone who measures there.
_counting: list[weakref.ref[CudaRecorder]] = []
_counted: list[None] = []

# The one that was started last. Torch's profiler, which it stands on, is the thread's only one; two
# in two threads end the process, as Kineto below it is the process's only one.
_running: list[tuple[weakref.ref[CpuRecorder], weakref.WeakMethod[Callable[[], bool]]]] = []
_starting = threading.Lock()

# Threads whose recorder is gone, and whose profiler it could not stop.
_left_running: list[threading.Thread] = []


@atexit.register
def _end_with_the_program() -> None:
    """Where it ends in the middle of a step, as by an exception: torch's profiler, whose state
    would go after what it logs with, ends the process by a signal otherwise."""
    interrupt_recording()
    for reference, _ in _running:
        recorder = reference()
        # Not `is_busy`: the main thread counts as stopped by now.
        if recorder is not None and recorder.thread is threading.current_thread():
            recorder.abandon()


@dataclass(eq=False)
class CpuRecorder:
    """By the allocator's events in this thread."""

    events: list[int] = field(default_factory=list[int])
    running: bool = True
    thread: threading.Thread = field(default_factory=threading.current_thread)

    @property
    def is_busy(self) -> bool:
        """Whether it notes events."""
        return self.running and self.thread.is_alive()

    def __post_init__(self) -> None:
        with quiet_profiler():
            torch_hooks.start_memory_events()
        self.mark()

    def mark(self) -> None:
        if self.running:
            mark(torch.device("cpu"))

    def finish(self) -> Levels:
        self.abandon()
        return levels_of(self.events)

    def __del__(self) -> None:
        # Of a step that was left halfway. Python collects it in any thread and at any moment: where
        # torch's profiler can't be stopped then, the next who measures does it.
        if self.running and (
            self.thread is not threading.current_thread() or torch_hooks.in_backward()
        ):
            _left_running.append(self.thread)
        else:
            self.abandon()

    def abandon(self) -> None:
        if self.running:
            self.running = False
            with quiet_profiler():
                self.events = torch_hooks.take_memory_events()


@dataclass(eq=False)
class CudaRecorder:
    """By the caching allocator's counters, whose peak statistics are reset at every mark."""

    device: torch.device
    at_mark: list[int] = field(default_factory=list[int])
    peaks: list[int] = field(default_factory=list[int])
    start: int = 0
    running: bool = True

    def __post_init__(self) -> None:
        self.start = torch.cuda.memory_allocated(self.device)
        self.mark()

    def mark(self) -> None:
        if not self.running:
            return
        if self.at_mark:
            self.peaks.append(torch.cuda.max_memory_allocated(self.device) - self.start)
        self.at_mark.append(torch.cuda.memory_allocated(self.device) - self.start)
        torch.cuda.reset_peak_memory_stats(self.device)

    def finish(self) -> Levels:
        self.abandon()
        return Levels(tuple(self.at_mark), tuple(self.peaks))

    def abandon(self) -> None:
        if self.running:
            self.running = False
            self.peaks.append(torch.cuda.max_memory_allocated(self.device) - self.start)


@contextmanager
def quiet_profiler() -> Generator[None]:
    """Keep kineto from writing its stages to stderr, unless its log level was chosen, and torch
    from warning that a profile of one cycle has the events of one cycle."""
    name = "KINETO_LOG_LEVEL"
    chosen = name in os.environ
    os.environ.setdefault(name, "99")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Profiler clears events")
            yield
    finally:
        if not chosen:
            del os.environ[name]
