"""Loops of unknown length: bits as of a plain while loop, and the number of steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fxremat
from fxremat_solvers.loops.online import online
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace
from tests.fxremat_solvers.loops.followed import interpret


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_bits(dtype: torch.dtype, dropout: float) -> None:
    cell = Cell(dropout=dropout).to(dtype)
    y = torch.randn(8, 16, dtype=dtype, requires_grad=True)
    leaves = [y, *cell.parameters()]
    for steps, slots in ((1, 3), (5, 1), (9, 3), (40, 4)):
        expected = trace(lambda steps=steps: (plain(cell, y, steps=steps), steps), leaves)
        options: Any = {"slots": slots, "check": "always"}
        found = trace(
            lambda steps=steps, options=options: fxremat.loop(
                cell, y, while_=lambda _, i: i < steps, **options
            ),
            leaves,
        )
        assert_same(expected, found)


def test_a_condition_on_the_state() -> None:
    """A step size that adapts itself; outputs are stacked, and one is the state."""
    rate = torch.tensor(0.7, requires_grad=True)
    y = torch.randn(5, requires_grad=True)

    def step(state: Any, _: int) -> Any:
        time, y = state
        size = (0.05 / (rate * y).norm().detach()).clamp(max=0.2)
        new = y - size * rate * y
        return (time + size, new), (new, size)

    def going(state: Any, _: int) -> bool:
        return bool(state[0] < 1.5)

    def while_loop() -> Any:
        state, outputs, count = (torch.zeros(()), y), [], 0
        while going(state, count):
            state, output = step(state, count)
            outputs.append(output)
            count += 1
        assert count > 10
        return state, tuple(torch.stack(each) for each in zip(*outputs, strict=True)), count

    expected = trace(while_loop, [rate, y])
    state = (torch.zeros(()), y)
    found = trace(
        lambda: fxremat.loop(step, state, while_=going, slots=3, outputs=True, check="always"),
        [rate, y],
    )
    assert_same(expected, found)


def test_the_most_steps_and_none() -> None:
    weight, asked = torch.ones(3, requires_grad=True), [0]

    def going(_: Any, i: int) -> bool:
        assert i == asked[0]
        asked[0] += 1
        return True

    calls: list[int] = []

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        calls.append(i)
        return y * weight

    final, count = fxremat.loop(step, torch.ones(3), while_=going, max_steps=9, slots=2)
    assert count == asked[0] == 9
    final.sum().backward()
    assert asked[0] == 9, "the condition is not asked again"
    assert len(calls) == interpret(online(2, lambda i: i < 9)).evaluations
    final, count = fxremat.loop(step, weight, while_=lambda *_: False, slots=2)
    assert count == 0
    assert final is weight
    with torch.no_grad():
        assert fxremat.loop(step, weight, while_=lambda _, i: i < 4, slots=2)[1] == 4


def test_a_leaf_that_passes_through_is_not_the_users_own_tensor() -> None:
    weight, constant = torch.ones(3, requires_grad=True), torch.tensor([2.0])
    (final, same), _ = fxremat.loop(
        lambda s, _: (s[0] * weight * s[1], s[1]),
        (torch.ones(3), constant),
        while_=lambda _, i: i < 3,
        slots=2,
    )
    assert same is not constant
    assert torch.equal(same, constant)
    final.sum().backward()
    assert not constant.requires_grad


def test_a_condition_that_draws() -> None:
    weight = torch.ones(3, requires_grad=True)
    with pytest.raises(fxremat.LoopError, match="draws random numbers"):
        fxremat.loop(
            lambda y, _: y * weight, torch.ones(3), while_=lambda *_: torch.rand(()) < 2, slots=2
        )
