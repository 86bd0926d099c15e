"""Joint graphs that can't be planned are refused, with the reason and the way out."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch._higher_order_ops.map import map as map_over
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

import fxremat
from fxremat import UnsupportedGraphError
from fxremat.nodes import inner_graphs
from tests.numerics.steps import assert_same, plan_of, run_steps, tight_budget


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


def by_custom_op_in_cond(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.sum() > 0, lambda x: custom(x), lambda x: x.cos(), (x,))


@torch.library.custom_op("fxremat_test::custom", mutates_args=())
def custom(x: torch.Tensor) -> torch.Tensor:
    return x.sin()


custom.register_fake(torch.empty_like)
custom.register_autograd(lambda _, gradient: gradient)


@pytest.mark.parametrize("inner", [by_while_loop, by_nested_compile_region, by_custom_op_in_cond])
def test_graphs_inside_that_cant_be_counted(
    inner: Callable[[torch.Tensor], torch.Tensor],
) -> None:
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
    assert [len(inner_graphs(named[n.name])) for n in (inside, bare, plain)] == [1, 0, 0]


class Branches(nn.Module):
    """One branch takes forty times the other's memory; which one is taken depends on the data."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 16)
        self.wide = nn.Parameter(torch.randn(16, 256) * 0.1)
        self.sign = sign

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x))

        def wide(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return torch.tanh(torch.sin(h @ w)) @ w.t()

        def narrow(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return h.clone() * w[0, 0]

        h = torch.cond(self.sign * h.square().sum() > 0, wide, narrow, (h, self.wide))
        return torch.tanh(self.last(h)).square().mean()


class Loops(nn.Module):
    """A map and a scan, with layers before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.gelu(self.first(x))
        h = map_over(lambda row: row.sin().cos().exp(), h)
        _, h = scan(lambda carry, row: (carry * 0.5 + row.sin(), carry * row), h[0], h)
        return torch.sigmoid(self.last(h)).square().mean()


MODELS = {"wide": Branches(1), "narrow": Branches(-1), "loops": Loops()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_control_flow_is_counted(name: str, share: float) -> None:
    own, twin = copy.deepcopy(MODELS[name]), copy.deepcopy(MODELS[name])
    batches = [(torch.randn(128, 16),) for _ in range(3)]
    optimized = fxremat.optimize(own, budget=tight_budget(own, batches[0], share))
    backend = "aot_eager_default_partitioner"
    graph = torch.compile(twin, backend=backend, fullgraph=True, dynamic=False)
    assert_same(run_steps(twin, graph, batches), run_steps(own, optimized, batches))
    own.zero_grad(set_to_none=True)
    measured = fxremat.measure_peak(lambda: optimized(*batches[0]).backward()).peak_bytes
    assert measured <= plan_of(optimized).peak_bytes <= plan_of(optimized).budget_bytes


def test_checkpointed_regions_are_planned() -> None:
    x = torch.randn(16, 16, requires_grad=True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        inner = lambda x: x.sin().cos().exp()  # noqa: E731
        h = torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False)
        return h.square().mean()

    fxremat.optimize(loss, budget=1.0)(x).backward()
    assert x.grad is not None
