"""A model's problem as a file that the solvers' own command reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fxremat import OptionError
from fxremat.report.export import export_from_factory
from fxremat_solvers import RematProblem, baseline, simulate


def factory() -> tuple[nn.Module, torch.Tensor]:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 1), nn.Flatten(0))
    return model, torch.randn(64, 8)


def test_export() -> None:
    problem = RematProblem.from_json(export_from_factory(f"{__name__}:factory", cost="roofline"))
    assert problem.first_backward_op is not None
    names = [op.name for op in problem.ops]
    assert names[problem.first_backward_op] == "tangents"
    assert any(name.startswith("gelu_backward") for name in names)
    assert simulate(problem, baseline(problem)).peak_bytes > 64 * 8 * 4


@pytest.mark.parametrize("path", ["nowhere:factory", "torch:factory", "torch", "os:getcwd"])
def test_bad_factories(path: str) -> None:
    with pytest.raises(OptionError):
        export_from_factory(path)


def test_the_command_writes_what_the_solver_reads(tmp_path: Path) -> None:
    problem = tmp_path / "problem.json"
    export = [sys.executable, "-m", "fxremat", "export", f"{__name__}:factory", "--out"]
    subprocess.run([*export, str(problem)], check=True)
    nbytes = simulate(
        RematProblem.from_json(problem.read_text()),
        baseline(RematProblem.from_json(problem.read_text())),
    ).peak_bytes
    solve = [sys.executable, "-m", "fxremat_solvers", "solve", str(problem)]
    done = subprocess.run(
        [*solve, "--budget-bytes", str(nbytes)], check=True, capture_output=True, text=True
    )
    assert '"optimal"' in done.stdout
