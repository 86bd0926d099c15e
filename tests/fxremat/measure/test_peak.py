"""Measured memory: the most at once, what is left, and who else may measure."""

from __future__ import annotations

import gc

import pytest
import torch

import fxremat
from fxremat.measure.peak import ProfilerBusyError

KEPT: list[torch.Tensor] = []


def test_the_peak_and_what_is_left() -> None:
    def allocate() -> None:
        KEPT.append(torch.zeros(100) + torch.zeros(100))

    measured = fxremat.measure_peak(allocate)
    KEPT.clear()
    assert (measured.peak_bytes, measured.end_bytes) == (1200, 400)
    assert measured.timeline_bytes == (400, 800, 1200, 800, 400)


def test_a_profiler_of_the_users_is_an_error_that_says_so() -> None:
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
        pytest.raises(ProfilerBusyError, match="after it stopped"),
    ):
        fxremat.measure_peak(lambda: None)


def test_the_first_step_may_be_measured() -> None:
    optimized = fxremat.optimize(lambda x: x.sin().sum(), budget=1.0)
    x = torch.randn(8, requires_grad=True)
    assert fxremat.measure_peak(lambda: optimized(x).backward()).peak_bytes >= x.nbytes


def test_a_cycle_of_before_isnt_freed_meanwhile() -> None:
    collecting, thresholds = gc.isenabled(), gc.get_threshold()

    def leave_a_cycle() -> None:
        # Measured, or torch doesn't know the bytes that are freed later.
        cycle: list[object] = [torch.zeros(1000)]
        cycle.append(cycle)

    def allocate() -> None:
        gc.set_threshold(10, 1, 1)
        assert [[] for _ in range(100)]
        torch.zeros(100)

    try:
        gc.collect()
        gc.set_threshold(1_000_000)
        gc.enable()
        assert fxremat.measure_peak(leave_a_cycle).end_bytes == 4000
        assert fxremat.measure_peak(allocate).timeline_bytes == (400, 0)
        assert gc.isenabled()
    finally:
        gc.set_threshold(*thresholds)
        if not collecting:
            gc.disable()
