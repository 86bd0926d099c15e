"""Joint graphs that can't be planned are refused, with the reason and the way out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch._higher_order_ops.map import map as map_over
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

import fxremat
from fxremat import UnsupportedGraphError
from fxremat.capture import read


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> None:
    torch._dynamo.reset()


def by_cond(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.sum() > 0, lambda x: x.sin() @ x.t(), lambda x: x.cos() @ x.t(), (x,))


def by_map(x: torch.Tensor) -> torch.Tensor:
    return map_over(lambda row: row.sin().cos(), x)


def by_scan(x: torch.Tensor) -> torch.Tensor:
    return scan(lambda carry, row: (carry + row.sin(), carry * row), x[0], x)[1]


def by_while_loop(x: torch.Tensor) -> torch.Tensor:
    start = torch.tensor(0)
    return while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x.sin()), (start, x))[1]


@torch.compiler.nested_compile_region
def region(x: torch.Tensor) -> torch.Tensor:
    return x.sin().cos()


def by_nested_compile_region(x: torch.Tensor) -> torch.Tensor:
    return region(x) + region(x * 2)


@pytest.mark.parametrize(
    "inner", [by_cond, by_map, by_scan, by_while_loop, by_nested_compile_region]
)
def test_graphs_inside_operators(inner: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.randn(16, 16, requires_grad=True)
    with pytest.raises(UnsupportedGraphError, match=r"graphs inside.*budget.*plain tensor ops"):
        fxremat.optimize(lambda x: inner(x * 2).square().mean(), budget=0.9)(x)


def test_an_operator_is_known_by_its_graphs() -> None:
    # torch trains flex_attention on a GPU only, so that no joint graph has it here.
    graph = fx.Graph()
    x = graph.placeholder("x")
    score = graph.get_attr("score")
    flex = torch.ops.higher_order.flex_attention
    inside = graph.call_function(flex, (x, x, x, score, (), 1.0, {}))
    bare = graph.call_function(
        torch.ops.higher_order.with_effects, (x, torch.ops.aten.sin.default, x)
    )
    plain = graph.call_function(torch.ops.aten.sin.default, (x,))
    owner = nn.Module()
    owner.score = fx.GraphModule(nn.Module(), fx.Graph())
    owned = fx.GraphModule(owner, graph)
    named = {node.name: node for node in owned.graph.nodes}
    assert [read.holds_graph(named[n.name]) for n in (inside, bare, plain)] == [
        True,
        False,
        False,
    ]


def test_checkpointed_regions_are_planned() -> None:
    x = torch.randn(16, 16, requires_grad=True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        inner = lambda x: x.sin().cos().exp()  # noqa: E731
        h = torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False)
        return h.square().mean()

    fxremat.optimize(loss, budget=1.0)(x).backward()
    assert x.grad is not None
