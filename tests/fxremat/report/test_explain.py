"""`explain`: figures that add up, a table of the model's own lines, JSON, a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxremat
from tests.numerics.steps import tight_budget


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = F.gelu(block(x))
        return x.square().mean()


@pytest.fixture(scope="module")
def report() -> fxremat.Report:
    stack, batch = Stack(), (torch.randn(512, 16),)
    budget = tight_budget(stack, batch)
    return fxremat.explain(fxremat.optimize(stack, budget=budget, example_inputs=batch))


def test_figures_agree(report: fxremat.Report) -> None:
    assert report.planned_peak_bytes <= report.budget_bytes < report.baseline_peak_bytes
    assert max(report.timeline_bytes) == report.planned_peak_bytes
    assert max(report.baseline_timeline_bytes) == report.baseline_peak_bytes
    assert sum(row.recomputed_seconds for row in report.rows) == pytest.approx(report.extra_seconds)
    assert sum(row.kept_bytes for row in report.rows) == report.residual_bytes
    assert 0 <= report.lower_bound_seconds <= report.extra_seconds + 1e-12


def test_identical_layers_are_one_row(report: fxremat.Report) -> None:
    rows = [row for row in report.rows if row.module == "blocks.*"]
    assert rows
    assert max(row.layers for row in rows) > 1
    assert all("test_explain.py" in row.source for row in rows)


def test_json_and_text(report: fxremat.Report) -> None:
    fields = json.loads(report.to_json())
    assert fields["budget_bytes"] == report.budget_bytes
    assert fields["rows"][0]["module"] == report.rows[0].module
    assert "blocks.*" in str(report)


def test_plot(report: fxremat.Report, tmp_path: Path) -> None:
    path = tmp_path / "timeline.png"
    report.plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_floor_is_one_figure() -> None:
    stack, x = Stack(), torch.randn(512, 16)
    probe = fxremat.optimize(stack, budget=1.0, example_inputs=x)
    assert fxremat.explain(probe).floor_bytes is None, "nothing is searched for here"
    floor = fxremat.floor(probe)
    assert fxremat.explain(probe).floor_bytes == floor
    with pytest.raises(fxremat.BudgetInfeasible) as caught:
        fxremat.optimize(stack, budget="1B", example_inputs=x)
    assert caught.value.floor_bytes == floor
    met = fxremat.optimize(stack, budget=floor, example_inputs=x)
    assert fxremat.explain(met).planned_peak_bytes <= floor
