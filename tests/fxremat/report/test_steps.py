"""`explain_step`: what it says of a step of two graphs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fxremat


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.second = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        torch._dynamo.graph_break()
        return self.second(x).square().mean()


def test_it_names_the_graphs_and_what_is_outside() -> None:
    model = fxremat.optimize(Broken(), budget=1.0)
    with pytest.raises(fxremat.OptionError, match="second step"):
        fxremat.explain_step(model)
    for _ in range(3):
        model(torch.randn(32, 16)).backward()
    report = fxremat.explain_step(model)
    assert len(report.calls) == 2
    assert "graph_break" in report.calls[0].ends_with
    assert "test_steps.py" in report.calls[0].name
    assert 0 < report.outside_peak_bytes < report.planned_peak_bytes <= report.budget_bytes
    assert report.lower_bound_seconds <= report.extra_seconds + 1e-12
    assert "calls of graphs" in str(report)


def test_a_model_of_one_graph_has_no_such_report() -> None:
    model = fxremat.optimize(nn.Linear(4, 4), budget=1.0)
    model(torch.ones(2, 4)).sum().backward()
    with pytest.raises(fxremat.OptionError, match="explain"):
        fxremat.explain_step(model)
