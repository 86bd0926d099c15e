"""A loop's results, gradients and random state are bit for bit those of the plain Python loop."""

from __future__ import annotations

import functools
import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from fxremat_solvers.loops.binomial import evaluations
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace

DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def check(
    step: Callable[[Any, Any], Any],
    state: Any,
    leaves: list[torch.Tensor],
    slots: int = 3,
    options: dict[str, Any] | None = None,
    **kind: Any,
) -> None:
    expected = trace(lambda: plain(step, state, **kind), leaves)
    options = {"slots": slots, "check": "always", **(options or {})}
    assert_same(expected, trace(lambda: fxremat.loop(step, state, **kind, **options), leaves))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("grad", [True, False])
def test_module_whose_parameters_are_used_many_times(
    dtype: torch.dtype, dropout: float, grad: bool
) -> None:
    cell = Cell(dropout=dropout).to(dtype)
    y = torch.randn(8, 16, dtype=dtype, requires_grad=grad)
    leaves = [*([y] if grad else []), *cell.parameters()]
    for steps, slots in ((1, 1), (2, 1), (7, 2), (30, 3), (12, 12)):
        check(cell, y, leaves, slots, steps=steps)


@pytest.mark.parametrize(("steps", "slots"), [(1, 1), (9, 1), (40, 4), (40, 60)])
def test_evaluations_are_the_optimum(steps: int, slots: int) -> None:
    calls: list[int] = []
    weight = torch.ones(3, requires_grad=True)

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        calls.append(i)
        return torch.sin(y * weight)

    fxremat.loop(step, torch.ones(3), steps=steps, slots=slots).sum().backward()
    assert len(calls) == evaluations(steps, min(steps, slots))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_xs_and_outputs(dtype: torch.dtype, dropout: float) -> None:
    """One of the outputs is the state itself, whose gradient comes first of all."""
    cell, drop = nn.LSTMCell(8, 8).to(dtype), nn.Dropout(dropout)
    xs = torch.randn(20, 4, 8, dtype=dtype, requires_grad=True)
    h = torch.zeros(4, 8, dtype=dtype)
    c = torch.randn(4, 8, dtype=dtype, requires_grad=True)

    def step(state: dict[str, torch.Tensor], x: torch.Tensor) -> Any:
        h, c = cell(drop(x), (state["h"], state["c"]))
        return {"h": h, "c": c}, (h, (c.tanh() * 2, h.detach(), h))

    check(step, {"h": h, "c": c}, [xs, c, *cell.parameters()], xs=xs, outputs=True)


def test_trajectory_of_the_state() -> None:
    cell, y = Cell(), torch.randn(8, 16, requires_grad=True)

    def step(y: torch.Tensor, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        new = cell(y, i)
        return new, new

    check(step, y, [y, *cell.parameters()], steps=20, outputs=True)


def test_xs_are_a_tree_and_some_need_no_gradient() -> None:
    xs = {
        "force": torch.randn(9, 4, requires_grad=True),
        "index": torch.arange(9),
        "unused": torch.randn(9, 2, requires_grad=True),
        "mask": torch.rand(9, 4),
    }

    def step(y: torch.Tensor, x: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.sin(y + x["force"] * x["mask"]) * (x["index"] % 3 + 1)

    y = torch.randn(4, requires_grad=True)
    check(step, y, [y, xs["force"], xs["unused"]], xs=xs)


def test_state_of_many_kinds() -> None:
    """Integers, plain numbers and None pass through; leaves begin to require gradients late."""
    weight = torch.randn(4, requires_grad=True)

    def step(state: Any, _: int) -> Any:
        position, (speed, count), calls, nothing = state
        assert nothing is None
        force = -position * weight if count < 7 else position * weight.sin()
        return position + 0.1 * speed, (speed + 0.1 * force, count + 1), calls + 1, None

    state = (torch.randn(4), (torch.randn(4), torch.tensor(0)), 0, None)
    check(step, state, [weight], steps=15)


def test_state_that_holds_one_tensor_twice() -> None:
    """As the first state of a method of two steps does."""
    weight, y = torch.randn(6, requires_grad=True), torch.randn(6, requires_grad=True)

    def step(state: tuple[torch.Tensor, torch.Tensor], i: int) -> Any:
        now, before = state
        new = 1.9 * now - 0.95 * before * weight.cos() + (now * weight).sin()
        return (new, new) if i % 4 == 2 else (new, now)

    check(step, (y, y), [y, weight], steps=14)


def test_state_that_requires_no_gradient_again() -> None:
    weight = torch.randn(4, requires_grad=True)

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        return torch.zeros(4) if i == 5 else torch.sin(y + weight)

    check(step, torch.randn(4), [weight], steps=12)


def test_closure_over_what_was_computed_before() -> None:
    base, y = torch.randn(6, 6, requires_grad=True), torch.randn(3, 6, requires_grad=True)

    def run(loop: Callable[..., Any], **options: Any) -> torch.Tensor:
        whole, first = (base @ base.t()) / 6, base.unbind()[0]

        def step(y: torch.Tensor, _: int) -> torch.Tensor:
            return torch.tanh(y @ whole + y * whole[0] + first)

        return loop(step, y, steps=12, **options)

    expected = trace(lambda: run(plain), [base, y])
    assert_same(expected, trace(lambda: run(fxremat.loop, slots=3, check="always"), [base, y]))


def test_first_state_that_the_step_reads_too() -> None:
    y, weight = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    check(lambda x, _: torch.sin(x * weight + y), y, [y, weight], options={"params": [y]}, steps=9)


def test_methods_partials_and_globals() -> None:
    class Model:
        def __init__(self) -> None:
            self.weight = torch.randn(4, requires_grad=True).exp()

        def step(self, scale: float, y: torch.Tensor, _: int) -> torch.Tensor:
            return torch.sin(scale * y * self.weight)

    model, y = Model(), torch.randn(4, requires_grad=True)
    check(functools.partial(model.step, 2.0), y, [y, model.weight], steps=8)


@pytest.mark.parametrize("late", [1, 4, 8])
def test_parameter_that_is_read_late(late: int) -> None:
    """Found in a module; a bare tensor is found where the last step reads it, or is an error."""
    first, second, y = (torch.randn(3, requires_grad=True) for _ in range(3))

    class Switching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Parameter(first), nn.Parameter(second)

        def forward(self, y: torch.Tensor, i: int) -> torch.Tensor:
            return torch.sin(y * (self.second if i == late else self.first))

    module = Switching()
    leaves = [y, *module.parameters()]
    check(module, y, leaves, 2, steps=9)

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        return torch.sin(y * (make()[0] if i == late else first))

    def make() -> list[torch.Tensor]:
        return hidden.tensors

    hidden = _Hidden([second])
    if late == 4:
        with pytest.raises(fxremat.LoopError, match="params="):
            fxremat.loop(step, y, steps=9, slots=2).sum().backward()
    check(step, y, [y, first, second], 2, {"params": [second]}, steps=9)


class _Hidden:
    """What a search by attributes can't look into."""

    __slots__ = ("tensors",)

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self.tensors = tensors


def test_hooks_on_parameters_are_called_once() -> None:
    cell, y = Cell(), torch.randn(8, 16)
    calls: list[str] = []
    cell.inner.weight.register_hook(lambda g: calls.append("tensor") or g * 2)
    cell.inner.weight.register_post_accumulate_grad_hook(lambda _: calls.append("accumulated"))
    found: list[torch.Tensor] = []
    for run in (plain, functools.partial(fxremat.loop, slots=2)):
        cell.zero_grad(set_to_none=True)
        run(cell, y, steps=10).sum().backward()
        assert cell.inner.weight.grad is not None
        found.append(cell.inner.weight.grad)
    assert torch.equal(*found)
    assert calls == ["tensor", "accumulated"] * 2


def test_hooks_on_what_was_computed_before_are_called_once() -> None:
    base, y, calls = torch.randn(4, requires_grad=True), torch.randn(4), [0]

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return gradient * 2

    found: list[torch.Tensor] = []
    for run in (plain, functools.partial(fxremat.loop, slots=2)):
        weight = base.exp()
        weight.register_hook(hook)
        final = run(lambda y, _, weight=weight: torch.sin(y * weight), y, steps=9)
        found += torch.autograd.grad(final.sum(), base)
    assert torch.equal(*found)
    assert calls == [2]


def test_complex_states() -> None:
    weight = torch.randn(4, dtype=torch.complex64, requires_grad=True)
    y = torch.randn(4, dtype=torch.complex64, requires_grad=True)

    def step(y: torch.Tensor, _: int) -> torch.Tensor:
        return (y * weight / y.abs().detach()).conj()

    def real(loop: Callable[..., Any], **options: Any) -> torch.Tensor:
        return torch.view_as_real(loop(step, y, steps=9, **options).resolve_conj())

    expected = trace(lambda: real(plain), [y, weight])
    assert_same(expected, trace(lambda: real(fxremat.loop, slots=2, check="always"), [y, weight]))


def test_uses_before_the_loop_and_accumulated_gradients() -> None:
    cell, y = Cell(), torch.randn(8, 16)
    found: list[list[torch.Tensor | None]] = []
    for run in (plain, functools.partial(fxremat.loop, slots=2)):
        cell.zero_grad(set_to_none=True)
        for _ in range(3):
            before = cell.inner(y).sin().sum()
            (run(cell, y, steps=10).sum() + before).backward()
        found.append([p.grad for p in cell.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))  # pyright: ignore


def test_generators_of_the_users_own() -> None:
    own, weight = torch.Generator(), torch.ones(4, requires_grad=True)

    def step(y: torch.Tensor, _: int) -> torch.Tensor:
        return torch.sin(y * weight) + torch.rand(4, generator=own)

    def seeded(loop: Callable[..., Any], **options: Any) -> torch.Tensor:
        own.manual_seed(3)
        return loop(step, torch.ones(4), steps=9, **options)

    expected = trace(lambda: seeded(plain), [weight])
    assert_same(expected, trace(lambda: seeded(fxremat.loop, slots=2, check="always"), [weight]))


def test_steps_with_checkpoints_and_autocast_inside() -> None:
    cell, y = Cell(dropout=0.2), torch.randn(8, 16, requires_grad=True)

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.utils.checkpoint.checkpoint(cell, y, i, use_reentrant=False).float()

    check(step, y, [y, *cell.parameters()], steps=8)


def test_a_loop_in_a_loop() -> None:
    """Against the plain outer loop of the same inner loops."""
    cell, y = Cell(dropout=0.1), torch.randn(8, 16, requires_grad=True)

    def step(y: torch.Tensor, _: int) -> torch.Tensor:
        return fxremat.loop(cell, y, steps=4, slots=2)

    check(step, y, [y, *cell.parameters()], 2, steps=6)


def test_without_gradients_nothing_is_kept() -> None:
    cell, y = Cell(dropout=0.3), torch.randn(8, 16)

    def step(y: torch.Tensor, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return cell(y, i), y.sum()

    results: list[Any] = []
    for run in (plain, functools.partial(fxremat.loop, slots=1)):
        torch.manual_seed(0)
        with torch.no_grad():
            results.append(run(step, y, steps=5, outputs=True))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not results[1][0].requires_grad


def test_no_steps() -> None:
    y = torch.ones(3, requires_grad=True)
    assert fxremat.loop(lambda y, _: y * 2, y, steps=0, slots=1) is y


def test_the_result_may_be_changed_in_place() -> None:
    weight, y = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)

    def changed(loop: Callable[..., Any], **options: Any) -> torch.Tensor:
        final = loop(lambda y, _: torch.sin(y) * weight, y, steps=6, **options)
        return final.mul_(2)

    expected = trace(lambda: changed(plain), [y, weight])
    assert_same(expected, trace(lambda: changed(fxremat.loop, slots=2), [y, weight]))


def test_memory_is_freed_without_the_garbage_collector() -> None:
    kept: list[weakref.ref[torch.Tensor]] = []
    weight = torch.ones(3, requires_grad=True)

    def step(y: torch.Tensor, _: int) -> torch.Tensor:
        new = torch.sin(y * weight)
        kept.append(weakref.ref(new))
        return new

    gc.disable()
    try:
        for use, length in itertools.product(
            (_dropped, _differentiated), ({"steps": 9}, {"while_": lambda _, i: i < 9})
        ):
            kept.clear()
            result: Any = fxremat.loop(step, torch.ones(3), slots=3, **length)
            use(result if "steps" in length else result[0])
            del result
            assert kept
            assert not any(ref() is not None for ref in kept)
    finally:
        gc.enable()


def _dropped(result: torch.Tensor) -> None:
    assert result.requires_grad


def _differentiated(result: torch.Tensor) -> None:
    result.sum().backward()
