"""A test that fails shows its reason, and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

FAILING = """
import pytest
import torch
import fxremat


@pytest.mark.parametrize("budget", [1.0, "100B"], ids=["fits", "does_not"])
def test_that_fails(budget):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 1))
    step = fxremat.optimize(lambda x: model(x).sum(), budget=budget)
    step(torch.ones(4, 8)).backward()
    assert model[0].weight.grad is None, "the reason"
"""


def test_failures_show_their_reasons_and_little_else(tmp_path: Path) -> None:
    """Of a comparison, and of an error that came out of the compiler through torch."""
    path = tmp_path / "test_failing.py"
    path.write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.conftest"]
    command += ["-p", "no:cacheprovider", str(path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    shown = done.stdout
    assert done.returncode == 1, shown + done.stderr
    assert "2 failed" in shown
    assert "AssertionError: the reason" in shown
    assert "the budget of 100 bytes can't be met" in shown
    assert "Captured" not in shown, "logs of torch's"
    assert len(shown.splitlines()) < 80
