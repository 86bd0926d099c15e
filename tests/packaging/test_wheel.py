"""The wheel built from the sdist works where only it and its dependencies are installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CHECK = """
import pathlib, sys
import fxremat_solvers
assert "torch" not in sys.modules, "the solvers import torch"
import fxremat
here = pathlib.Path(sys.prefix).resolve()
for module in (fxremat, fxremat_solvers):
    path = pathlib.Path(module.__file__).resolve()
    assert here in path.parents, f"{path} isn't the wheel's"
import torch
assert "fxremat" in torch._dynamo.list_backends(), torch._dynamo.list_backends()
step = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
torch.compile(step, backend="fxremat", options={"budget": 1.0})(torch.ones(2, 4)).sum().backward()
assert step[0].weight.grad is not None
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the sdist, and the wheel out of the sdist (what `build` does without flags)."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True)
    assert len(list(out.glob("*.tar.gz"))) == 1
    (built,) = out.glob("*.whl")
    return built


def test_wheel_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    venv.create(clean, with_pip=False)
    python = clean / ("Scripts" if os.name == "nt" else "bin") / "python"
    # The dependencies are this environment's, through one plain path: an editable install of the
    # project there is reached through a .pth file, which isn't read in a folder named like this.
    (site,) = clean.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([str(python), "-c", CHECK], check=True, cwd=tmp_path, env=environment)
