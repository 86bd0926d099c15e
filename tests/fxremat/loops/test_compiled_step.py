"""Loops whose step is traced and planned once: bits of the plain loop, one budget, one trace."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace


@pytest.mark.parametrize(
    ("dtype", "store"),
    [(torch.float32, "disk"), (torch.bfloat16, "ram"), (torch.float64, "ram")],
)
def test_bits_are_the_plain_loops(dtype: torch.dtype, store: str, tmp_path: Path) -> None:
    """With dropout, parameters used four times a step, and the step's number."""
    cell = Cell(dropout=0.3).to(dtype)
    y = torch.randn(8, 16, dtype=dtype, requires_grad=True)
    leaves = [y, *cell.parameters()]
    options: Any = {"slots": 3, "compile": True, "check": "always"}
    options["store"] = "ram" if store == "ram" else f"disk:{tmp_path}"
    expected = trace(lambda: plain(cell, y, steps=20), leaves)
    assert_same(expected, trace(lambda: fxremat.loop(cell, y, steps=20, **options), leaves))


def test_xs_outputs_and_a_loop_of_unknown_length() -> None:
    """One output is the state itself, one leaf of which gets no gradient from outside."""
    cell, drop = nn.LSTMCell(8, 8), nn.Dropout(0.2)
    xs = torch.randn(12, 4, 8, requires_grad=True)
    first = {"h": torch.zeros(4, 8), "c": torch.randn(4, 8, requires_grad=True)}
    leaves = [xs, first["c"], *cell.parameters()]

    def step(state: dict[str, torch.Tensor], x: torch.Tensor) -> Any:
        h, c = cell(drop(x), (state["h"], state["c"]))
        return {"h": h, "c": c}, (h, (c.tanh() * 2, h.detach()))

    def of(loop: Any, **options: Any) -> Any:
        final, ys = loop(step, first, xs=xs, outputs=True, **options)
        return final["h"], ys

    expected = trace(lambda: of(plain), leaves)
    assert_same(expected, trace(lambda: of(fxremat.loop, slots=3, compile=True), leaves))

    rk, y = Cell(), torch.randn(8, 16)
    expected = trace(lambda: plain(rk, y, steps=11), list(rk.parameters()))
    options: Any = {"while_": lambda _, i: i < 11, "slots": 3, "compile": True}
    found = trace(lambda: fxremat.loop(rk, y, **options)[0], list(rk.parameters()))
    assert_same(expected, found)


def test_leaves_that_are_passed_on_and_counted() -> None:
    weight, before = torch.randn(6, requires_grad=True), torch.randn(6, requires_grad=True)
    state = (torch.randn(6, requires_grad=True), before, torch.tensor(0), "kept")

    def step(state: Any, i: int) -> Any:
        now, before, count, kind = state
        new = 1.9 * now - 0.95 * before * weight.cos() + (now * weight).sin() * (1 + 0.1 * i)
        return new, now, count + 1, kind

    leaves = [state[0], before, weight]
    expected = trace(lambda: plain(step, state, steps=15), leaves)
    found = trace(lambda: fxremat.loop(step, state, steps=15, slots=3, compile=True), leaves)
    assert_same(expected, found)


def test_one_budget_for_states_tapes_and_the_steps_own_plan() -> None:
    """Less than a step takes as it is; measured, and with the plan's bits."""
    cell, y = Cell(32, dropout=0.2), torch.randn(64, 32, requires_grad=True)
    leaves = [y, *cell.parameters()]
    least = fxremat.loop.plan(cell, y, steps=30, slots=1, compile=True)
    expected = trace(lambda: plain(cell, y, steps=30), leaves)
    budget = int(0.92 * least.peak_bytes)
    plan = fxremat.loop.plan(cell, y, steps=30, budget=budget, compile=True)
    assert plan.compiled is not None
    assert plan.compiled.extra_seconds > 0

    def run() -> None:
        final = fxremat.loop(cell, y, steps=30, schedule=plan)
        torch.autograd.grad(final, leaves, torch.ones_like(final))

    run()
    assert fxremat.measure_peak(run).peak_bytes <= plan.peak_bytes <= budget
    assert_same(expected, trace(lambda: fxremat.loop(cell, y, steps=30, schedule=plan), leaves))
    with pytest.raises(fxremat.BudgetInfeasible):
        fxremat.loop.plan(cell, y, steps=3, budget="20KiB", compile=True)


def test_what_is_traced_and_planned_does_not_depend_on_the_number_of_steps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cell, y = Cell(), torch.randn(4, 16)
    passes: list[int] = []
    for steps in (5, 80):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="fxremat"):
            fxremat.loop(cell, y, steps=steps, slots=4, compile=True).sum().backward()
        passes.append(sum("capture" in record.getMessage() for record in caplog.records))
    assert passes == [1, 1]


def test_kernels_of_inductor() -> None:
    """Rounded as they round."""
    weight, y = torch.full((4,), 0.5, requires_grad=True), torch.randn(4)

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        return torch.sin(y * weight) * weight + 0.1 * i

    expected = trace(lambda: plain(step, y, steps=9), [weight])
    options: Any = {"compile": True, "executor": "inductor", "slots": 2}
    found = trace(lambda: fxremat.loop(step, y, steps=9, **options), [weight])
    torch.testing.assert_close(found.gradients, expected.gradients)
    assert expected.gradients[0] is not None


def test_steps_that_no_trace_stands_for() -> None:
    weight, y = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)

    def branches(y: torch.Tensor, i: int) -> torch.Tensor:
        return torch.sin(y * weight) if i % 3 else y * weight

    def counts(state: Any, _: int) -> Any:
        return state[0] * weight, state[1] + 1

    def breaks(y: torch.Tensor, _: int) -> torch.Tensor:
        return y * weight if y.sum() > 0 else y

    def indexes(y: torch.Tensor, i: int) -> torch.Tensor:
        return y * weight[i % 4]

    options: Any = {"steps": 9, "slots": 2, "compile": True}
    for step in (branches, indexes):
        with pytest.raises(fxremat.LoopError, match="another way"):
            fxremat.loop(step, y, **options)
    with pytest.raises(fxremat.LoopError, match="number 1"):
        fxremat.loop(counts, (y, 0), **options)
    with pytest.raises(fxremat.LoopError, match="one tensor twice"):
        fxremat.loop(lambda s, _: s, (y, y), **options)
    with pytest.raises(fxremat.GraphBreakError, match="leave compile out"):
        fxremat.loop(breaks, y, **options)


def test_a_plan_is_for_its_step_and_its_sizes() -> None:
    cell, y = Cell(), torch.randn(4, 16)
    plan = fxremat.loop.plan(cell, y, steps=9, slots=2, compile=True)
    with pytest.raises(fxremat.OptionError, match="another one"):
        fxremat.loop(Cell(), y, steps=9, schedule=plan)
    with pytest.raises(fxremat.OptionError, match="leaf 0"):
        fxremat.loop(cell, torch.randn(5, 16), steps=9, schedule=plan)
    cell.inner.weight = nn.Parameter(torch.randn(32, 16))
    with pytest.raises(fxremat.OptionError, match="no longer"):
        fxremat.loop(cell, y, steps=9, schedule=plan)
    with pytest.raises(fxremat.OptionError, match="executor"):
        fxremat.loop(cell, y, steps=9, slots=2, executor="inductor")
    bare = fxremat.loop.plan(cell, y, steps=9, slots=2)
    with pytest.raises(fxremat.OptionError, match="isn't compiled"):
        fxremat.loop(cell, y, steps=9, schedule=bare, compile=True)
