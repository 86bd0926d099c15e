"""A further input shape is planned at once, by what was planned for others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.history import CompiledGraph, Origin
from tests.numerics.steps import assert_same, run_steps


class Net(nn.Module):
    """Random numbers, a buffer that changes, and enough layers to choose among."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        block = (nn.Linear(32, 32), nn.GELU(), nn.Dropout(0.2))
        self.layers = nn.Sequential(*(copy.deepcopy(m) for _ in range(3) for m in block))
        self.norm = nn.BatchNorm1d(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layers(x)).square().mean()


def rows(*counts: int) -> list[tuple[torch.Tensor]]:
    return [(torch.randn(count, 32),) for count in counts]


def optimize(model: Any, **options: Any) -> Any:
    """With a short search, over costs that take no time to know."""
    given: dict[str, Any] = {"budget": 0.7, "cost": "flops", "preset": "brief", **options}
    return fxremat.optimize(model, **given)


def graphs_of(optimized: object) -> list[CompiledGraph]:
    return compiled_of(optimized).backend.history.graphs


def test_further_shapes_are_planned_at_once_and_right() -> None:
    batches = rows(512, 384, 640, 512, 384, 640)
    untouched, own = Net(), Net()
    expected = run_steps(untouched, untouched, batches)
    optimized = optimize(own)
    assert_same(expected, run_steps(own, optimized, batches))
    graphs = graphs_of(optimized)
    assert [graph.origin for graph in graphs] == [Origin.SEARCHED, Origin.QUICK, Origin.QUICK]
    assert [graph.calls.count for graph in graphs] == [2, 2, 2]
    assert len(graphs[2].plan.schedule) > len(graphs[2].plan.problem.ops)
    for graph, batch in zip(graphs, batches, strict=False):
        own.zero_grad(set_to_none=True)
        measured = fxremat.measure_peak(lambda x=batch[0]: optimized(x).backward()).peak_bytes
        assert measured <= graph.plan.peak_bytes <= graph.plan.budget_bytes


def test_nothing_is_timed_for_a_plan_at_once() -> None:
    optimized = optimize(Net(), cost="auto")
    for batch in rows(512, 384):
        optimized(*batch).backward()
    costs = [operation.cost for operation in graphs_of(optimized)[1].plan.graph.operations]
    assert {cost.seconds_from for cost in costs} <= {"scaled", "roofline", "measured"}
    assert sum(cost.seconds_from == "scaled" for cost in costs) > len(costs) / 2
    assert all(cost.workspace_measured for cost in costs if cost.seconds_from == "scaled")


def test_other_operations_are_searched_for() -> None:
    net = Net()
    optimized = optimize(net)
    for batch in rows(512, 384):
        optimized(*batch).backward()
    optimized.eval()  # no dropout, other statistics
    optimized(*rows(512)[0]).backward()
    origins = [graph.origin for graph in graphs_of(optimized)]
    assert origins == [Origin.SEARCHED, Origin.QUICK, Origin.SEARCHED]


def test_where_no_plan_at_once_fits_there_is_a_search() -> None:
    """At the smallest budget of a larger shape, which no plan of the smaller one's keeps."""
    probe = optimize(Net(), budget=1.0, example_inputs=rows(512)[0])
    optimized = optimize(Net(), budget=fxremat.floor(probe))
    for batch in rows(384, 512):
        optimized(*batch).backward()
    plan = graphs_of(optimized)[1].plan
    assert plan.peak_bytes <= plan.budget_bytes
    with pytest.raises(fxremat.BudgetInfeasible):
        optimized(*rows(1024)[0])


def test_what_was_planned_ahead_is_used_and_another_solver_is_asked() -> None:
    ahead = optimize(Net(), example_inputs=rows(512)[0])
    for batch in rows(384, 512):
        ahead(*batch).backward()
    origin_of = {graph.input_shapes: graph.origin for graph in graphs_of(ahead)}
    assert [*origin_of.values()] == [Origin.QUICK, Origin.SEARCHED]
    greedy = optimize(Net(), solver="greedy")
    for batch in rows(512, 384):
        greedy(*batch).backward()
    assert [graph.origin for graph in graphs_of(greedy)] == [Origin.SEARCHED, Origin.SEARCHED]
