"""A second executor, whose units are pairs of ops: nothing outside of this file knows of it.

    x -> linear -> silu -> mul -> ...     a pair: an op, and the only op that reads what it makes

What lives only inside a pair is its workspace, and both are recomputed, or none.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import fxremat
from fxremat import torch_hooks
from fxremat.execute.eager import Eager
from fxremat.execute.executor import Boxed, Executor
from fxremat.execute.lifetimes import timeline
from fxremat.frontend.backend import Backend
from fxremat.frontend.compiled import Compiled
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.graph import Cost, JointGraph, Operation
from fxremat.memory_model import MemoryModel
from fxremat.pipeline.observe import check
from fxremat.plan.options import make_options
from fxremat.rewrite import UNIT, Rewritten
from tests.numerics.steps import assert_same, run_steps


@dataclass
class Pairs:
    """Runs an op and its only reader as one; `fused` are the units of several ops it compiled."""

    fused: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    name: str = "pairs"

    def backend(self, *args: Any) -> Any:
        return Eager().backend(*args)

    def capture(self, *args: Any) -> JointGraph:
        return Eager().capture(*args)

    def memory(self, device: torch.device) -> MemoryModel:
        return MemoryModel(device)

    def units(self, graph: JointGraph) -> JointGraph:
        kept = {graph.storage_of[n] for n in (*graph.forward_outputs, *graph.gradients)}
        units: list[Operation] = []
        first_backward = 0
        for position, operation in enumerate(graph.operations):
            if position == graph.first_backward:
                first_backward = len(units)
            last = units[-1] if len(units) > first_backward else None
            if last is not None and len(last.nodes) == 1 and _joins(graph, last, operation, kept):
                inside = set(last.makes)
                reads = dict.fromkeys((*last.reads, *operation.reads))
                outside = tuple(storage for storage in reads if storage not in inside)
                units[-1] = Operation((*last.nodes, *operation.nodes), outside, operation.makes)
            else:
                units.append(operation)
        return replace(graph, operations=tuple(units), first_backward=first_backward)

    def cost(self, unit: Operation, nodes: Sequence[Cost]) -> Cost:
        if len(unit.nodes) == 1:
            return nodes[0]
        first, second = nodes
        inner = sum(first.made_bytes.values())
        # All that the pair makes counts while it runs: so much is allocated beside that.
        most = max(inner + first.workspace_bytes - sum(second.made_bytes.values()), 0)
        return replace(
            second,
            seconds=first.seconds + second.seconds,
            flops=first.flops + second.flops,
            workspace_bytes=max(most, inner + second.workspace_bytes),
            workspace_measured=first.workspace_measured and second.workspace_measured,
        )

    def predict(self, rewritten: Rewritten, memory: MemoryModel) -> Sequence[int]:
        return timeline(rewritten, memory)

    def compile(self, graph: fx.GraphModule) -> Boxed:
        """One call for each unit of several nodes, over what is between them too (views)."""
        nodes = list(graph.graph.nodes)
        units: dict[int, list[fx.Node]] = {}
        for node in nodes:
            if node.op == "call_function" and UNIT in node.meta:
                units.setdefault(node.meta[UNIT], []).append(node)
        for unit in units.values():
            if len(unit) > 1:
                between = nodes[nodes.index(unit[0]) : nodes.index(unit[-1]) + 1]
                self.fused.append(tuple(node.name for node in unit))
                _fuse(graph, between)
        graph.graph.lint()
        graph.recompile()
        return torch_hooks.boxed_executor(graph)


def _joins(graph: JointGraph, first: Operation, second: Operation, kept: set[Any]) -> bool:
    """Whether the second operation alone reads what the first one makes."""
    if kept & {*first.makes}:
        return False
    readers = [o for o in graph.operations if set(o.reads) & set(first.makes)]
    return bool(first.makes) and readers == [second]


def _fuse(graph: fx.GraphModule, nodes: list[fx.Node]) -> None:
    """Put one call in the place of some nodes that stand in a row."""
    inside = set(nodes)
    given = list(dict.fromkeys(a for n in nodes for a in n.all_input_nodes if a not in inside))
    left = [node for node in nodes if any(user not in inside for user in node.users)]
    inner = fx.Graph()
    values = {node: inner.placeholder(node.name) for node in given}
    for node in nodes:
        values[node] = inner.node_copy(node, lambda n: values[n])
    inner.output(tuple(values[node] for node in left))
    call = fx.GraphModule(graph, inner).forward
    with graph.graph.inserting_before(nodes[0]):
        fused = graph.graph.call_function(lambda *arguments: call(*arguments), tuple(given))
        for position, node in enumerate(left):
            item = graph.graph.call_function(lambda made, i: made[i], (fused, position))
            node.replace_all_uses_with(item, lambda user: user not in inside)
    for node in reversed(nodes):
        graph.graph.erase_node(node)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = F.dropout(F.silu(layer(x) * 2 + 1).exp().sin(), 0.2)
        return self.norm(x).square().mean()


X = torch.randn(64, 16)


def compiled(module: nn.Module, budget: int | float, executor: Executor) -> Compiled:
    options = make_options({"budget": budget, "cost": "flops", "preset": "brief"})
    backend = Backend(options, WholeStep(fullgraph=True), executor, between=(check,))
    return Compiled.of(module.forward, backend, module)


def budgets() -> tuple[int, int]:
    """A budget near the least that a plan of pairs needs, and what it takes without any."""
    module = Net()
    probe = compiled(module, 1.0, Pairs())
    probe(X).backward()
    plan = probe.backend.history.graphs[0].plan
    least, most = plan.lowest.peak_bytes, plan.baseline_peak_bytes
    return least + (most - least) // 10, most


@pytest.mark.parametrize("tight", [False, True])
def test_a_second_executor_trains_by_its_own_units(tight: bool) -> None:
    budget = budgets()[0 if tight else 1]
    module = Net()
    twin = copy.deepcopy(module)
    pairs = Pairs()
    step = compiled(module, budget, pairs)
    batches = [(torch.randn(64, 16),) for _ in range(3)]
    assert_same(run_steps(twin, twin, batches), run_steps(module, step, batches))
    plan = step.backend.history.graphs[0].plan
    runs = (*plan.program.forward, *plan.program.backward)
    assert len(pairs.fused) == sum(len(run.operation.nodes) == 2 for run in runs) > 4
    again = any(len(run.operation.nodes) == 2 and not run.first for run in runs)
    assert again == tight, "pairs are recomputed whole where memory is short"


@pytest.mark.parametrize("tight", [False, True])
def test_pairs_take_no_more_than_their_executor_foretells(tight: bool) -> None:
    budget = budgets()[0 if tight else 1]
    module = Net()
    step = compiled(module, budget, Pairs())
    for _ in range(2):
        module.zero_grad(set_to_none=True)
        step(X).backward()
    module.zero_grad(set_to_none=True)
    measured = fxremat.measure_peak(lambda: step(X).backward()).peak_bytes
    planned = step.backend.history.graphs[0].plan.peak_bytes
    assert 0.9 * planned < measured <= planned <= budget


@dataclass
class Wrong(Pairs):
    """Units that break the contract."""

    fault: str = ""

    def units(self, graph: JointGraph) -> JointGraph:
        graph = super().units(graph)
        first, *others = graph.operations
        if self.fault == "a node is left out":
            return replace(graph, operations=tuple(others), first_backward=graph.first_backward - 1)
        if self.fault == "a node is in the wrong part":
            return replace(graph, first_backward=graph.first_backward - 1)
        return graph.with_operations([replace(first, makes=()), *others])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("a node is left out", "forward don't run the nodes of forward"),
        ("a node is in the wrong part", "forward don't run the nodes of forward"),
        ("what others read is dropped", "which drops it"),
    ],
)
def test_units_that_break_the_contract_are_refused(fault: str, message: str) -> None:
    with pytest.raises(fxremat.VerificationError, match=message):
        compiled(Net(), 1.0, Wrong(fault=fault))(X)


def test_units_may_draw_and_update_more_than_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.dropout(F.dropout(x.sin(), 0.2), 0.2)
            self.count.add_(1)
            return (x * self.count).square().mean()

    module = Twice()
    batches = [(torch.randn(64, 16, requires_grad=True),) for _ in range(3)]
    twin = copy.deepcopy(module)
    step = compiled(module, 1.0, All())
    assert_same(run_steps(twin, twin, batches), run_steps(module, step, batches))


@dataclass
class All(Pairs):
    """All of forward is one unit, and all of backward."""

    def units(self, graph: JointGraph) -> JointGraph:
        parts = (graph.forward, graph.backward)
        made = [{s for o in part for s in o.makes} for part in parts]
        kept = {graph.storage_of[n] for n in (*graph.forward_outputs, *graph.gradients)}
        units = [
            Operation(
                tuple(node for o in part for node in o.nodes),
                tuple(dict.fromkeys(s for o in part for s in o.reads if s not in inside)),
                tuple(s for o in part for s in o.makes if s in kept or s not in made[1]),
            )
            for part, inside in zip(parts, made, strict=True)
        ]
        return replace(graph, operations=tuple(units), first_backward=1)

    def cost(self, unit: Operation, nodes: Sequence[Cost]) -> Cost:
        made = {s: n for cost in nodes for s, n in cost.made_bytes.items()}
        return replace(
            nodes[0],
            made_bytes={storage: made[storage] for storage in unit.makes},
            workspace_bytes=sum(made.values()) + max(cost.workspace_bytes for cost in nodes),
        )
