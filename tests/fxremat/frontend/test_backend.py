"""What changes from step to step: Python numbers, batch sizes, more shapes than are kept."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxremat
from fxremat import torch_hooks
from fxremat.frontend.backend import Backend
from fxremat.frontend.compiled import Compiled, compiled_of
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.frontend.history import CompiledGraph
from fxremat.plan.options import make_options


def layers(width: int = 32, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    pairs = [m for _ in range(2) for m in (nn.Linear(width, width), nn.GELU())]
    return nn.Sequential(*pairs).to(dtype)


def graphs_of(optimized: object) -> list[CompiledGraph]:
    return compiled_of(optimized).backend.history.graphs


def step(net: nn.Module, function: Callable[..., torch.Tensor], *args: Any) -> list[torch.Tensor]:
    net.zero_grad()
    loss = function(*args)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("dtype", "number"),
    [(torch.bfloat16, lambda i: 0.1 * i + 0.05), (torch.float32, lambda i: 3 + i)],
    ids=["float", "int"],
)
def test_a_number_that_changes_is_planned_twice(
    dtype: torch.dtype, number: Callable[[int], float]
) -> None:
    net = layers(dtype=dtype)

    def loss(x: torch.Tensor, weight: float) -> torch.Tensor:
        hidden = net(x) * weight + x / (2 * weight + 1)
        return (net(hidden) * weight).square().mean() / weight

    optimized = fxremat.optimize(loss, budget=0.7, preset="brief")
    for i in range(5):
        x = torch.randn(64, 32, dtype=dtype)
        assert_equal(step(net, optimized, x, number(i)), step(net, loss, x, number(i)))
    plans = [graph.plan for graph in graphs_of(optimized)]
    assert len(plans) == 2
    assert all(len(plan.schedule) > len(plan.problem.ops) for plan in plans)
    assert all(o.cost.workspace_measured for plan in plans for o in plan.graph.operations)


def test_a_count_that_a_module_keeps_is_planned_twice() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.step = nn.Linear(8, 8), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.step += 1
            return self.layer(x).mean() * self.step

    optimized = fxremat.optimize(Counting(), budget=1.0)
    for _ in range(5):
        optimized(torch.randn(4, 8)).backward()
    assert optimized.step == 5
    assert len(graphs_of(optimized)) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda y, n: y.mean() * divmod(y.shape[0], n)[0],
        lambda y, n: y.mean() * len(str((n, tuple(y.shape)))),
        lambda y, n: (y.abs() + 1).pow(n).mean(),
    ],
    ids=["divmod", "str", "pow"],
)
def test_what_can_not_be_traced_with_symbols_has_a_plan_for_each(
    function: Callable[[torch.Tensor, int], torch.Tensor],
) -> None:
    net = layers()

    def loss(x: torch.Tensor, number: int) -> torch.Tensor:
        return function(net(x), number)

    optimized = fxremat.optimize(loss, budget=1.0)
    for rows, number in ((64, 2), (48, 3), (32, 4), (64, 2)):
        x = torch.randn(rows, 32)
        assert_equal(step(net, optimized, x, number), step(net, loss, x, number))
    assert len(graphs_of(optimized)) == 3


def test_a_number_that_is_a_size_has_a_plan_of_its_own() -> None:
    net = layers()

    def loss(x: torch.Tensor, rows: int) -> torch.Tensor:
        return net(x[:rows]).square().sum() / rows

    optimized = fxremat.optimize(loss, budget=1.0)
    x = torch.randn(16, 32)
    for rows in (8, 9, 10, 9):
        assert_equal(step(net, optimized, x, rows), step(net, loss, x, rows))
    assert len(graphs_of(optimized)) == 3


def test_a_number_is_returned_as_it_is() -> None:
    net = layers()

    def loss(x: torch.Tensor, count: int) -> tuple[torch.Tensor, int]:
        return net(x).mul(count).square().mean(), 2 * count

    optimized = fxremat.optimize(loss, budget=1.0)
    x = torch.randn(8, 32)
    assert [optimized(x, count)[1] for count in (3, 4, 5)] == [6, 8, 10]
    assert len(graphs_of(optimized)) == 2


def classifier() -> tuple[nn.Module, Callable[..., torch.Tensor]]:
    net = nn.Sequential(layers(), nn.Linear(32, 10))
    return net, lambda x, y: F.cross_entropy(net(x), y)


def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 32), torch.randint(0, 10, (rows,))


def test_a_fraction_is_one_of_the_largest_step() -> None:
    net, loss = classifier()
    optimized = fxremat.optimize(loss, budget=0.7)
    for rows in (256, 256, 10):
        args = batch(rows)
        assert_equal(step(net, optimized, *args), step(net, loss, *args))
    large, small = (graph.plan for graph in graphs_of(optimized))
    assert large.budget_bytes == int(0.7 * large.baseline_peak_bytes)
    assert small.budget_bytes == large.budget_bytes
    assert len(small.schedule) == len(small.problem.ops), "it fits with nothing recomputed"
    assert "of the largest step" in str(fxremat.explain(optimized))


def test_a_larger_step_raises_what_a_fraction_is_of() -> None:
    _, loss = classifier()
    optimized = fxremat.optimize(loss, budget=1.0)
    for rows in (16, 128, 64):
        optimized(*batch(rows)).backward()
    first, second, third = (graph.plan for graph in graphs_of(optimized))
    assert first.budget_bytes < second.budget_bytes == third.budget_bytes


def test_views_of_a_larger_tensor_in_many_lengths() -> None:
    """As tokens and the next ones are: their storages change as their shapes do."""
    weight = torch.randn(8, 8, requires_grad=True)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((x @ weight).tanh() - y).square().mean()

    optimized = fxremat.optimize(loss, budget=1.0)
    for length in (5, 7, 9):
        tokens = torch.randn(2, length, 8)
        args = tokens[:, :-1], tokens[:, 1:]
        ours, original = (torch.autograd.grad(f(*args), weight) for f in (optimized, loss))
        assert torch.equal(*ours, *original)


def test_a_call_that_fails_does_not_fix_the_numbers_of_others() -> None:
    traced: list[int] = []

    def backend(module: Any, inputs: Any) -> Any:
        torch_hooks.specialize_sizes(module, inputs, numbers=False)
        traced.append(len(inputs))
        return module.forward

    call = torch_hooks.compile_whole(lambda x, scale: (x * scale).sum(), backend, 9)
    x = torch.randn(8)
    for scale in (1.5, 2.5, 3.5):
        call(x, scale)
    count = len(traced)
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        call(x, "no number")
    for scale in (4.5, 5.5, 6.5):
        call(x, scale)
    assert len(traced) == count


def test_past_the_limit_a_new_shape_takes_the_place_of_the_oldest() -> None:
    compiled: list[int] = []
    evicted: list[int] = []

    def backend(module: Any, inputs: Any) -> Any:
        torch_hooks.specialize_sizes(module, inputs, numbers=True)
        compiled.append(inputs[-1].shape[0])
        return module.forward

    call = torch_hooks.compile_whole(
        lambda x: x.sin().sum(), backend, 3, lambda: evicted.append(compiled[-1])
    )
    for rows in (2, 3, 4, 2, 5, 6, 2, 3, 2, 6):
        x = torch.randn(rows)
        assert torch.equal(call(x), x.sin().sum())
    assert compiled == [2, 3, 4, 5, 6, 3], "2 and 6 were used in between"
    assert evicted == [5, 6, 3], "one for one"


def test_the_oldest_plan_alone_is_let_go_of_and_it_is_said_once() -> None:
    net, loss = classifier()
    backend = Backend(make_options({"budget": 1.0}), WholeStep(fullgraph=True))
    compiled = Compiled.of(loss, backend, shapes_limit=2)
    for size in (8, 9):
        compiled(*batch(size)).backward()
    compiled(*batch(8)).backward()
    with pytest.warns(UserWarning, match=r"2 graphs are planned.*Pad inputs to fewer shapes"):
        compiled(*batch(10)).backward()
    gc.collect()
    assert [graph.input_shapes[-1] for graph in backend.history.graphs] == [(8,), (10,)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        args = batch(9)
        assert_equal(step(net, compiled, *args), step(net, loss, *args))
    gc.collect()
    assert [graph.input_shapes[-1] for graph in backend.history.graphs] == [(10,), (9,)]
