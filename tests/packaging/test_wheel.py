"""The wheel built from the sdist works where only it and its dependencies are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from fxremat_solvers import __version__

ROOT = Path(__file__).parents[2]

SOLVERS_CHECK = """
import importlib.util, pathlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "fxremat"):
            raise ImportError("refused: " + name)
sys.meta_path.insert(0, Refuse())
import fxremat_solvers
from fxremat_solvers import RematProblem, Value, baseline, plain_op, simulate, solve
values = tuple(Value(f"v{i}", 8) for i in range(4))
ops = tuple(plain_op(f"op{i}", (i - 1,) if i else (), (i,), 1.0, 0, True) for i in range(4))
problem = RematProblem(ops, values, (), (3,), 4)
path = pathlib.Path(fxremat_solvers.__file__).resolve()
assert pathlib.Path(sys.prefix).resolve() in path.parents, f"{path} isn't the wheel's"
assert (path.parent / "py.typed").exists()
solution = solve(problem, budget_bytes=simulate(problem, baseline(problem)).peak_bytes)
assert solution.cost == problem.baseline_cost
"""

CHECK = """
import pathlib, sys
import fxremat_solvers
assert "torch" not in sys.modules, "the solvers import torch"
import fxremat
here = pathlib.Path(sys.prefix).resolve()
for module in (fxremat, fxremat_solvers):
    path = pathlib.Path(module.__file__).resolve()
    assert here in path.parents, f"{path} isn't the wheel's"
    assert (path.parent / "py.typed").exists()
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


@pytest.fixture(scope="module")
def solvers_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The solvers alone, from their own folder."""
    out = tmp_path_factory.mktemp("solvers")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT / "solvers")], check=True)
    (built,) = out.glob("*.whl")
    return built


def run_in_a_clean_environment(wheel: Path, program: str, folder: Path) -> None:
    clean = folder / "clean"
    venv.create(clean, with_pip=False)
    python = clean / ("Scripts" if os.name == "nt" else "bin") / "python"
    # The dependencies are this environment's, through one plain path: an editable install of the
    # project there is reached through a .pth file, which isn't read in a folder named like this.
    (site,) = clean.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([str(python), "-c", program], check=True, cwd=folder, env=environment)


def test_wheel_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    run_in_a_clean_environment(wheel, CHECK, tmp_path)


def test_solvers_where_there_is_no_torch(solvers_wheel: Path, tmp_path: Path) -> None:
    run_in_a_clean_environment(solvers_wheel, SOLVERS_CHECK, tmp_path)


def about(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def requirements(wheel: Path) -> set[str]:
    """Names of what is always installed with it."""
    given = about(wheel).get_all("Requires-Dist", [])
    return {re.match(r"[\w-]+", each)[0] for each in given if "extra ==" not in each}  # type: ignore[index]


def test_requirements(wheel: Path, solvers_wheel: Path) -> None:
    """The solvers' are those of the whole but for torch, what its side draws with and keeps by."""
    assert requirements(wheel) - requirements(solvers_wheel) == {"torch", "rich", "platformdirs"}
    assert requirements(solvers_wheel) <= requirements(wheel)


def test_one_version(wheel: Path, solvers_wheel: Path) -> None:
    """In both wheels, where the package is cited, and in what says what changed."""
    versions = {about(each)["Version"] for each in (wheel, solvers_wheel)}
    assert versions == {__version__}
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
