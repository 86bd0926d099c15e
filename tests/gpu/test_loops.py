"""Loops on CUDA: bits of the plain loop's, and the allocator's peak, the same for any length.

FXREMAT_TEST_DEVICE=cpu runs the same tests on the CPU at small sizes, so that they can't rot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

# cuBLAS reads it when its first handle is made.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from torch import nn

import fxremat
from fxremat_solvers.loops.segments import segments
from tests.fxremat.loops.plain import Cell, Trace, assert_same, plain, trace

DEVICE = os.environ.get("FXREMAT_TEST_DEVICE") or "cuda"
ON_CUDA = DEVICE.startswith("cuda")
WIDTH, BATCH, STEPS = (256, 512, 60) if ON_CUDA else (16, 8, 15)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DTYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.fixture(autouse=True)
def _repeatable_kernels() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    yield
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(before)


def traced(run: Callable[[], Any], leaves: list[torch.Tensor]) -> tuple[Trace, torch.Tensor]:
    """What a run leaves, and the state of the device's generator."""
    found = trace(run, leaves)
    state = torch.cuda.get_rng_state(DEVICE) if ON_CUDA else torch.get_rng_state()
    return found, state


def check(step: Any, state: Any, leaves: list[torch.Tensor], options: Any, **kind: Any) -> None:
    expected, random = traced(lambda: plain(step, state, **kind), leaves)
    found, ours = traced(
        lambda: fxremat.loop(step, state, check="always", **kind, **options), leaves
    )
    assert_same(expected, found)
    assert torch.equal(random, ours)


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    found = torch.randn(shape, generator=generator, dtype=torch.float64)
    return found.to(DEVICE, dtype).requires_grad_()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("slots", [1, 4])
def test_known_length(dtype: torch.dtype, dropout: float, slots: int) -> None:
    cell, y = Cell(WIDTH, dropout).to(DEVICE, dtype), numbers(BATCH, WIDTH, dtype=dtype)
    check(cell, y, [y, *cell.parameters()], {"slots": slots}, steps=STEPS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tapes(dtype: torch.dtype) -> None:
    cell, y = Cell(WIDTH, 0.3).to(DEVICE, dtype), numbers(BATCH, WIDTH, dtype=dtype)
    options = {"schedule": segments(STEPS, 3, 4)}
    check(cell, y, [y, *cell.parameters()], options, steps=STEPS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_xs_and_outputs(dtype: torch.dtype) -> None:
    """A recurrent cell; one of its outputs is the state itself."""
    cell, drop = nn.GRUCell(WIDTH, WIDTH).to(DEVICE, dtype), nn.Dropout(0.2)
    xs, h = numbers(STEPS, BATCH, WIDTH, dtype=dtype), numbers(BATCH, WIDTH, dtype=dtype)

    def step(h: torch.Tensor, x: torch.Tensor) -> Any:
        new = cell(drop(x), h)
        return new, (new, new.tanh() * 2)

    check(step, h, [xs, h, *cell.parameters()], {"slots": 4}, xs=xs, outputs=True)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_unknown_length(dropout: float) -> None:
    cell, y = Cell(WIDTH, dropout).to(DEVICE), numbers(BATCH, WIDTH)
    leaves = [y, *cell.parameters()]
    expected, state = traced(lambda: plain(cell, y, steps=STEPS), leaves)

    def while_loop() -> torch.Tensor:
        final, count = fxremat.loop(cell, y, while_=lambda _, i: i < STEPS, slots=4, check="always")
        assert count == STEPS
        return final

    found, ours = traced(while_loop, leaves)
    assert_same(expected, found)
    assert torch.equal(state, ours)


def test_peak_does_not_grow_with_the_number_of_steps() -> None:
    cell, y = Cell(WIDTH).to(DEVICE), numbers(BATCH, WIDTH).detach()
    seed = torch.ones_like(y)
    peaks: list[int] = []
    for steps in (20, 20, 40, 80):

        def run(steps: int = steps) -> None:
            cell.zero_grad(set_to_none=True)
            fxremat.loop(cell, y, steps=steps, slots=4).backward(seed)

        run()
        cell.zero_grad(set_to_none=True)
        peaks.append(fxremat.measure_peak(run, device=DEVICE).peak_bytes)
    assert len(set(peaks[1:])) == 1, peaks


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["steps", "xs", "while"])
def test_states_in_pinned_host_memory(dropout: float, kind: str) -> None:
    """The host's copies take other streams; one is on its way while another is in use."""
    options: Any = {"slots": 2, "store": fxremat.Storage("cpu", 0, 0), "check": "always"}
    cell, gru = Cell(WIDTH, dropout).to(DEVICE), nn.GRUCell(WIDTH, WIDTH).to(DEVICE)
    y, xs, drop = numbers(BATCH, WIDTH), numbers(STEPS, BATCH, WIDTH), nn.Dropout(dropout)

    def step(h: torch.Tensor, x: torch.Tensor) -> Any:
        new = gru(drop(x), h)
        return new, new

    if kind == "xs":
        leaves = [y, xs, *gru.parameters()]
        expected, state = traced(lambda: plain(step, y, xs=xs, outputs=True), leaves)
        found, ours = traced(lambda: fxremat.loop(step, y, xs=xs, outputs=True, **options), leaves)
    else:
        leaves = [y, *cell.parameters()]
        length: Any = {"steps": STEPS} if kind == "steps" else {"while_": lambda _, i: i < STEPS}
        count = [] if kind == "steps" else [STEPS]
        expected, state = traced(lambda: [plain(cell, y, steps=STEPS), *count], leaves)
        found, ours = traced(lambda: fxremat.loop(cell, y, **length, **options), leaves)
    assert_same(expected, found)
    assert torch.equal(state, ours)


def test_a_state_on_several_devices() -> None:
    """A counter on the CPU beside the state on the GPU, in host memory and back."""
    weight = numbers(WIDTH)

    def step(state: Any, _: int) -> Any:
        y, count = state
        return torch.sin(y * weight) * (1 + 0.1 * float(count % 3)), count + 1

    options = {"slots": 1, "store": fxremat.Storage("cpu", 0, 0)}
    check(step, (numbers(WIDTH), torch.tensor(0)), [weight], options, steps=STEPS)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6])
def test_a_budget_holds(share: float, record_property: Callable[[str, object], None]) -> None:
    cell, y = Cell(WIDTH, 0.2).to(DEVICE), numbers(BATCH, WIDTH).detach()
    leaves, seed = [*cell.parameters()], torch.ones_like(y)
    least = fxremat.loop.plan(cell, y, steps=STEPS, slots=1).peak_bytes
    most = fxremat.loop.plan(cell, y, steps=STEPS, budget=1.0).peak_bytes
    plan = fxremat.loop.plan(cell, y, steps=STEPS, budget=least + int(share * (most - least)))

    def run() -> None:
        final = fxremat.loop(cell, y, steps=STEPS, schedule=plan)
        torch.autograd.grad(final, leaves, seed)

    run()
    taken = fxremat.measure_peak(run, device=DEVICE).peak_bytes
    record_property("planned_peak_bytes", plan.peak_bytes)
    record_property("measured_peak_bytes", taken)
    assert taken <= plan.peak_bytes
