"""What a loop can't do exactly is an error that says what to do, or is done right."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=True)


def looped(
    step: Callable[[Any, Any], Any] | None = None, state: Any = None, **options: Any
) -> torch.Tensor:
    options = {"steps": 6, "slots": 2, **options}
    weight = leaf(3)
    result = fxremat.loop(
        step or (lambda y, _: torch.sin(y * weight)), leaf(3) if state is None else state, **options
    )
    return result.sum()


def test_a_second_backward() -> None:
    loss = looped()
    loss.backward(retain_graph=True)
    with pytest.raises(fxremat.LoopError, match="second backward"):
        loss.backward()


def test_gradients_of_gradients() -> None:
    y = leaf(3)
    with pytest.raises(fxremat.DoubleBackwardError, match="create_graph"):
        torch.autograd.grad(looped(lambda y, _: y.sin(), y), y, create_graph=True)


def test_parameters_that_change_before_backward() -> None:
    weight = leaf(3)
    loss = looped(lambda y, _: torch.sin(y * weight))
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(fxremat.LoopError, match="optimizer"):
        loss.backward()


def test_xs_that_change_before_backward() -> None:
    xs, weight = torch.randn(6, 3), leaf(3)
    loss = looped(lambda y, x: y * x * weight, xs=xs, steps=None)
    xs.zero_()
    with pytest.raises(fxremat.LoopError, match="xs"):
        loss.backward()


def test_a_first_state_that_changes_before_backward() -> None:
    y, weight = torch.randn(3), leaf(3)
    loss = looped(lambda y, _: y * weight, y)
    y.zero_()
    with pytest.raises(fxremat.LoopError, match="state 0"):
        loss.backward()


def test_a_step_that_changes_its_state() -> None:
    weight = leaf(3)

    def step(y: torch.Tensor, _: int) -> torch.Tensor:
        new = y * weight
        y.mul_(2)
        return new

    with pytest.raises(fxremat.LoopError, match="changes its state in place"):
        looped(step, torch.randn(3))


@pytest.mark.parametrize("late", [0, 3])
def test_buffers_that_a_step_changes(late: int) -> None:
    norm = nn.BatchNorm1d(3)

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        return norm(y) if i >= late else y * 1

    with pytest.raises(fxremat.LoopError, match="running statistics"):
        looped(step, leaf(5, 3))
    norm.eval()
    y = leaf(5, 3)
    leaves = [y, *norm.parameters()]
    expected = trace(lambda: plain(step, y, steps=6), leaves)
    assert_same(expected, trace(lambda: fxremat.loop(step, y, steps=6, slots=2), leaves))


def test_autocast_around_the_loop() -> None:
    cell, y = Cell(dropout=0.2), leaf(8, 16)
    leaves = [y, *cell.parameters()]
    with pytest.raises(fxremat.LoopError, match="cache_enabled"), torch.autocast("cpu"):
        fxremat.loop(cell, y, steps=6, slots=2)

    def cast(loop: Callable[..., Any], **options: Any) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            return loop(lambda y, i: cell(y, i).float(), y, steps=6, **options)

    expected = trace(lambda: cast(plain), leaves)
    assert_same(expected, trace(lambda: cast(fxremat.loop, slots=2, check="always"), leaves))


def test_a_backward_under_autocast() -> None:
    """Steps that run again aren't cast, as they weren't at first."""
    cell, y = Cell(), leaf(8, 16)
    found: list[tuple[torch.Tensor, ...]] = []
    for run in (plain, fxremat.loop):
        slots = {} if run is plain else {"slots": 2, "check": "always"}
        loss = run(cell, y, steps=6, **slots).sum()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(torch.autograd.grad(loss, [y, *cell.parameters()]))
    # Backward's own products are cast, but not the steps: the gradients are near, not coarse.
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


def test_transforms_of_functions() -> None:
    with pytest.raises(fxremat.LoopError, match="batch"):
        torch.func.vmap(lambda y: fxremat.loop(torch.mul, y, steps=3, slots=1))(torch.ones(4, 3))


def test_steps_that_depend_on_something_else() -> None:
    calls, weight = itertools.count(), leaf(3)
    loss = looped(lambda y, _: torch.sin(y * weight) + next(calls))
    with pytest.raises(fxremat.LoopError, match="another state when it ran again"):
        loss.backward()
    looped(lambda y, _: torch.sin(y * weight) + next(calls), check="never").backward()


def test_replays_that_draw_other_random_numbers() -> None:
    """Without `rng` dropout is drawn anew, which the check of the first replay finds."""
    loss = looped(lambda y, _: nn.functional.dropout(y, 0.5), leaf(64), rng=False)
    with pytest.raises(fxremat.LoopError, match="another state"):
        loss.backward()


def test_a_captured_tensor_that_retains_its_gradient() -> None:
    weight = leaf(3).exp()
    weight.retain_grad()
    with pytest.raises(fxremat.LoopError, match="view_as"):
        looped(lambda y, _: y * weight)


def test_a_captured_tensor_that_is_nowhere() -> None:
    class Slot:
        __slots__ = ("weight",)

    slot = Slot()
    slot.weight = leaf(3).exp()  # pyright: ignore
    with pytest.raises(fxremat.LoopError, match=r"ExpBackward0.*params="):
        looped(lambda y, _: y * slot.weight)  # pyright: ignore
    looped(lambda y, _: y * slot.weight, params=[slot.weight]).backward()  # pyright: ignore


def _grows(y: Any, _: Any) -> Any:
    return torch.cat([y, y])


WRONG_STEPS = {
    "shape": (_grows, r"float32\[3\] on cpu, into float32\[6\]"),
    "type": (lambda y, _: y.double(), "float64"),
    "structure": (lambda y, _: (y, y), "another structure"),
    "number": (lambda *_: 1.0, "into a float"),
}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_steps_whose_state_changes_its_form(name: str) -> None:
    step, message = WRONG_STEPS[name]
    with pytest.raises(fxremat.LoopError, match=message):
        looped(step)


def test_outputs_that_are_none() -> None:
    with pytest.raises(fxremat.LoopError, match="no pair"):
        looped(lambda y, _: y.sin(), outputs=True)
    with pytest.raises(fxremat.LoopError, match="gave a float as output"):
        looped(lambda y, _: (y.sin(), 1.0), outputs=True)
    with pytest.raises(fxremat.LoopError, match="must be alike"):
        looped(lambda y, i: (y.sin(), y[: i + 1]), outputs=True)


def test_a_state_of_objects() -> None:
    with pytest.raises(fxremat.LoopError, match="holds a object"):
        looped(state=object())


@pytest.mark.parametrize(
    "options",
    [
        {"steps": None},
        {"steps": -1},
        {"steps": 2.0},
        {"slots": 0},
        {"slots": True},
        {"xs": torch.ones(3)},
        {"steps": None, "xs": (torch.ones(3), torch.ones(4))},
        {"steps": None, "xs": torch.tensor(1.0)},
        {"check": "sometimes"},
        {"max_steps": 3},
        {"while_": bool},
        {"steps": None, "while_": bool, "max_steps": -1},
    ],
    ids=str,
)
def test_options(options: dict[str, Any]) -> None:
    with pytest.raises(fxremat.OptionError):
        looped(**options)


def test_an_error_of_the_steps_in_backward() -> None:
    """It comes through, and the random state is what it was before backward."""
    weight, fails = leaf(3), [False]

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        if fails[0] and i == 2:
            raise KeyError("mine")
        return nn.functional.dropout(y * weight, 0.5)

    calls: list[int] = []
    weight.register_hook(lambda _: calls.append(1))
    loss = looped(step)
    before = torch.get_rng_state()
    fails[0] = True
    with pytest.raises(KeyError, match="mine"):
        loss.backward()
    assert torch.equal(before, torch.get_rng_state())
    weight.sum().backward()
    assert calls == [1]
