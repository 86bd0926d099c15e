"""The measurements, checked on themselves: known allocations, known differences."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from benchmarks.measure import (
    Ratio,
    Step,
    check_measurement,
    compare,
    measure_peak,
    relative_error,
    resident_bytes,
    same,
    step_peak,
    time_ratio,
)


def test_known_allocations() -> None:
    check_measurement()


def test_memory_live_at_entry_does_not_count() -> None:
    held = torch.empty(1 << 20, dtype=torch.uint8)
    assert measure_peak(lambda: torch.empty(1 << 10, dtype=torch.uint8)) == 1 << 10
    del held


def test_step_peak_counts_the_gradients() -> None:
    """y = (x @ w).sum(): 4 kB of product, 4 bytes of loss, and w's 4 kB of gradient at the end."""
    model = nn.Linear(32, 32, bias=False)
    step = Step(model, lambda x: model(x).sum())
    peak = step_peak(step, (torch.ones(32, 32),))
    assert 2 * 4096 <= peak <= 3 * 4096


def test_resident_bytes_counts_shared_storages_once() -> None:
    tied = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    tied[1].weight = tied[0].weight
    assert resident_bytes(tied) == 64


def test_same_is_bit_for_bit() -> None:
    nan = torch.tensor([float("nan"), 1.0])
    assert same(nan, nan.clone())
    assert not same(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same(torch.tensor([1.0]), None)
    assert same(None, None)


def test_relative_error() -> None:
    ones = [torch.ones(4)]
    assert relative_error(ones, ones) == 0
    assert relative_error(ones, [1.5 * torch.ones(4)]) == 0.5
    assert relative_error(ones, [None]) == 1
    assert relative_error([None], ones) == 2
    assert relative_error(ones, [math.nan * torch.ones(4)]) == math.inf


class Noisy(nn.Module):
    """Counts its calls in a buffer and draws one mask, or one mask too many."""

    def __init__(self, extra: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))
        self.register_buffer("calls", torch.zeros(()))
        self.extra = extra

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1  # type: ignore
        out = nn.functional.dropout(self.weight * x, 0.5)
        if self.extra:
            torch.rand(())
        return out.sum()


def batches(index: int) -> tuple[torch.Tensor]:
    return (torch.arange(64.0) + index,)


def test_compare_sees_equal_models_as_equal() -> None:
    model = Noisy(extra=False)
    other = copy.deepcopy(model)
    assert compare(Step(model, model), Step(other, other), batches).equal


def test_compare_sees_a_moved_stream_and_another_mask() -> None:
    model, moved = Noisy(extra=False), Noisy(extra=True)
    outcome = compare(Step(model, model), Step(moved, moved), batches)
    assert outcome.gradients_equal
    assert not outcome.rng_equal

    def redrawn(x: torch.Tensor) -> torch.Tensor:
        torch.rand(64)
        return other(x)

    other = copy.deepcopy(model)
    outcome = compare(Step(model, model), Step(other, redrawn), batches)
    assert not outcome.gradients_equal
    assert outcome.relative_error > 0.1
    assert outcome.first_difference == "step 0: weight"


def test_time_ratio_of_a_slower_step() -> None:
    """By a clock that goes on where a step tells it to: how busy the machine is says nothing."""
    model = nn.Linear(4, 4)
    passed = 0.0

    def step_of(seconds: float) -> Step:
        def loss(x: torch.Tensor) -> torch.Tensor:
            nonlocal passed
            passed += seconds
            return model(x).sum()

        return Step(model, loss)

    def ratio_of(**options: float) -> Ratio:
        steps = step_of(0.5), step_of(1.5)
        return time_ratio(*steps, lambda _: (torch.ones(4, 4),), clock=lambda: passed, **options)

    ratio = ratio_of()
    assert ratio.low == ratio.median == ratio.high == 3
    assert (ratio.step_s, ratio.reference_s, ratio.rounds) == (1.5, 0.5, 10)
    stopped = ratio_of(limit_s=1.0)
    assert stopped.rounds == 4
