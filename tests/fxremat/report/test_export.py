"""A model's problem as a document."""

from __future__ import annotations

import torch
from torch import nn

from fxremat.report.export import export_problem
from fxremat_solvers import RematProblem, baseline, simulate


def factory() -> tuple[nn.Module, torch.Tensor]:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 1), nn.Flatten(0))
    return model, torch.randn(64, 8)


def test_export() -> None:
    problem = RematProblem.from_json(export_problem(*factory(), cost="roofline"))
    assert problem.first_backward_op is not None
    names = [op.name for op in problem.ops]
    assert names[problem.first_backward_op] == "tangents"
    assert any(name.startswith("gelu_backward") for name in names)
    assert simulate(problem, baseline(problem)).peak_bytes > 64 * 8 * 4
