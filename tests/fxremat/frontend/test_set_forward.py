"""A forward that is set on an optimized module is what is planned, with what it calls inside."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of

X = torch.randn(16, 8)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, *, shift: float = 0.0) -> torch.Tensor:
        return self.head(self.body(x)) + shift


def tripled(model: Any) -> Callable[..., torch.Tensor]:
    """Calls the forward that the model has, as accelerate wraps one."""
    before = model.forward

    def forward(x: torch.Tensor, **options: Any) -> torch.Tensor:
        return before(x, **options) * 3

    return forward


def loss_of_the_body(model: Any) -> Callable[..., torch.Tensor]:
    """Calls the forward that the model has only where it is told to, as TRL replaces one."""
    before = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, x: torch.Tensor, fused: bool = True, **options: Any) -> torch.Tensor:
        if not fused:
            return before(x, **options)
        return (self.body(x) @ self.head.weight.T).square().mean()

    return types.MethodType(forward, model)


def train(model: nn.Module) -> list[torch.Tensor | None]:
    """Three steps; gradients and random state."""
    torch.manual_seed(0)
    for _ in range(3):
        model.zero_grad()
        model(X).square().mean().backward()
    return [*(p.grad for p in model.parameters()), torch.get_rng_state()]


def optimized(model: nn.Module, **options: Any) -> Any:
    return fxremat.optimize(model, budget=1.0, cost="flops", **{"fullgraph": True, **options})


def graphs(model: object) -> list[Any]:
    return list(compiled_of(model).backend.history.graphs)


@pytest.mark.parametrize("make", [tripled, loss_of_the_body])
def test_one_graph_with_what_it_calls_inside(make: Callable[[Any], Any]) -> None:
    model = Model()
    untouched = copy.deepcopy(model)
    drop_in = optimized(model)
    for each in (drop_in, untouched):
        each.forward = make(each)
        each.forward = tripled(each)
    for ours, theirs in zip(train(drop_in), train(untouched), strict=True):
        assert ours is theirs or torch.equal(ours, theirs)
    (graph,) = graphs(drop_in)
    ops = {node.target for op in graph.plan.graph.operations for node in op.nodes}
    assert torch.ops.aten.mul.Tensor in ops, "the multiplication is outside of the plan"
    assert compiled_of(drop_in).backend.steps.count == 3
    with torch.no_grad():
        drop_in(X)
    assert len(graphs(drop_in)) == 1


def test_its_signature_and_the_way_back_are_there() -> None:
    drop_in = optimized(Model())
    own = drop_in.forward
    drop_in.forward = loss_of_the_body(drop_in)
    expected = inspect.signature(loss_of_the_body(Model()))
    assert inspect.signature(drop_in.forward) == expected
    first = drop_in.forward
    drop_in.forward = tripled(drop_in)
    assert inspect.signature(drop_in.forward) == inspect.signature(tripled(Model()))
    drop_in(X)
    drop_in.forward = first
    assert drop_in.forward is first
    drop_in.forward = own
    assert drop_in.forward == own
    drop_in.forward = first
    del drop_in.forward
    assert drop_in.forward == own
    drop_in(X).sum().backward()
    assert len(graphs(drop_in)) == 2


def test_one_that_is_set_for_a_single_call_runs_as_it_is() -> None:
    drop_in = optimized(Model())

    def through_a_wrapper() -> None:
        before = drop_in.forward

        def forward(x: torch.Tensor) -> torch.Tensor:
            drop_in.forward = before
            return drop_in(x)

        drop_in.forward = forward
        drop_in(X).sum().backward()

    for _ in range(3):
        through_a_wrapper()
    assert len(graphs(drop_in)) == 1
    assert compiled_of(drop_in).backend.steps.count == 3


def test_one_that_is_set_again_and_again_is_heard_once() -> None:
    drop_in = optimized(Model())
    own = drop_in.forward
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(10):
            drop_in.forward = own
            drop_in.forward = tripled(drop_in)
    assert len(heard) == 1
    assert "Set it once" in str(heard[0].message)
    # What it calls is planned all the same.
    drop_in(X).sum().backward()
    assert len(graphs(drop_in)) == 1


def test_what_was_planned_goes_with_the_module() -> None:
    def plan() -> weakref.ref[Any]:
        drop_in = optimized(Model())
        drop_in.forward = loss_of_the_body(drop_in)
        drop_in(X).sum().backward()
        return weakref.ref(graphs(drop_in)[0].plan)

    found = plan()
    # The first lets go of what Dynamo compiled, which no collector sees; that held the plan.
    gc.collect()
    gc.collect()
    assert found() is None
