"""Compiled functions are cached, and a cache that is damaged or can't be written is no failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from fxremat_solvers.search.kernel_jit import compiled

@compiled
def doubled(x):
    return 2 * x

print(doubled(21), doubled(4))
"""


def run(folder: Path, cache: Path) -> str:
    (folder / "module.py").write_text(MODULE)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", "import module"],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("damaged", ["*.nbi", "*.nbc"])
def test_a_damaged_cache_is_compiled_anew(tmp_path: Path, damaged: str) -> None:
    cache = tmp_path / "cache"
    assert run(tmp_path, cache) == "42 8\n"
    files = list(cache.rglob(damaged))
    assert files
    for file in files:
        file.write_bytes(b"garbage")
    assert run(tmp_path, cache) == "42 8\n"


def test_where_nothing_can_be_cached_it_is_compiled_each_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert run(tmp_path, tmp_path / "cache") == "42 8\n"
