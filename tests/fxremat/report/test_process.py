"""`explain()`: what the process compiled by either door, and none of it kept alive."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
import torch

import fxremat
from fxremat.frontend.compiled import compiled_of
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


def test_a_graph_that_is_not_there() -> None:
    optimized = fxremat.optimize(Stack(), budget=1.0, example_inputs=torch.randn(64, 16))
    with pytest.raises(fxremat.OptionError, match="there is no graph"):
        fxremat.explain(graph=len(fxremat.explain()))
    with pytest.raises(fxremat.OptionError, match="there is no graph 7"):
        fxremat.explain(optimized, graph=7)
