"""A test that fails shows its reason, and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

FAILING = """
import torch
import fxremat


def test_that_fails():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 1))
    step = fxremat.optimize(lambda x: model(x).sum(), budget={budget})
    step(torch.ones(4, 8)).backward()
    assert model[0].weight.grad is None, "the reason"
"""


def output_of(test: str, folder: Path) -> str:
    """What pytest prints on a file with this test, under the project's settings."""
    path = folder / "test_failing.py"
    path.write_text(test)
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.conftest"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(path)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_a_failing_comparison_shows_it(tmp_path: Path) -> None:
    shown = output_of(FAILING.format(budget=1.0), tmp_path)
    assert "AssertionError: the reason" in shown
    assert "Captured" not in shown
    assert len(shown.splitlines()) < 40


def test_an_error_out_of_the_compiler_shows_it_without_torch_s_frames(tmp_path: Path) -> None:
    shown = output_of(FAILING.format(budget=100), tmp_path)
    assert "the budget of 100 bytes can't be met" in shown
    assert len(shown.splitlines()) < 80
