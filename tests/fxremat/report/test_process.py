"""`explain()`: what the process compiled by either door, and none of it kept alive."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
import torch

import fxremat
from fxremat.frontend.compiled import compiled_of
from fxremat.report.text import human_bytes
from tests.fxremat.report.models import Stack


def graphs() -> int:
    gc.collect()
    return len(fxremat.explain())


def test_both_doors_are_listed_and_let_go_of() -> None:
    before = graphs()
    x = torch.randn(64, 16)
    ours = fxremat.optimize(Stack(), budget=1.0)
    ours(x).backward()
    torchs = torch.compile(Stack(), backend="fxremat", options={"budget": 1.0})
    torchs(x).backward()
    torchs(x).backward()
    found = fxremat.explain()
    assert len(found) == before + 2
    first, second = found.graphs[-2:]
    assert "models.py" in first.name
    assert (first.planned.calls, second.planned.calls) == (1, 2)
    assert fxremat.explain(graph=second.graph).baseline_peak_bytes == (
        fxremat.explain(ours).baseline_peak_bytes
    )
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("models.py" in line for line in lines) >= 2  # others may be alive
    assert len(json.loads(found.to_json())["graphs"]) == before + 2

    graph = weakref.ref(compiled_of(ours).backend.history.graphs[0])
    del ours, torchs
    torch._dynamo.reset()
    assert graphs() == before
    assert graph() is None


def test_models_of_one_class_are_told_apart() -> None:
    first = fxremat.optimize(Stack(), budget=1.0, example_inputs=torch.randn(64, 16))
    second = fxremat.optimize(Stack(), budget=0.9, example_inputs=torch.randn(64, 16))
    found = fxremat.explain().graphs[-2:]
    assert found[0].name == found[1].name
    assert found[0].model < found[1].model
    assert found[0].graph < found[1].graph
    weights = sum(p.nbytes for p in second.parameters())
    assert [each.parameter_bytes for each in found] == [weights, weights]
    assert found[1].inputs == ((64, 16),)
    lines = [line for line in str(fxremat.explain()).splitlines() if "models.py" in line]
    row = next(line for line in lines if line.split()[0] == str(found[1].graph))
    assert "64x16" in row
    assert human_bytes(weights) in row
    assert human_bytes(found[1].planned.budget_bytes) in row
    budget = fxremat.explain(second).budget_bytes
    del first
    gc.collect()
    assert fxremat.explain(graph=found[1].graph).budget_bytes == budget, "by the same number"
    with pytest.raises(
        fxremat.OptionError, match=f"there is no graph {found[0].graph}: those that"
    ):
        fxremat.explain(graph=found[0].graph)


def test_a_graph_that_is_not_there() -> None:
    optimized = fxremat.optimize(Stack(), budget=1.0, example_inputs=torch.randn(64, 16))
    with pytest.raises(fxremat.OptionError, match="there is no graph"):
        fxremat.explain(graph=10**6)
    with pytest.raises(fxremat.OptionError, match="there is no graph 7"):
        fxremat.explain(optimized, graph=7)
