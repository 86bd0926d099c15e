"""Compiled functions are cached, and a cache that is damaged or can't be written is no failure."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fxremat_solvers.search import kernel_jit

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


def test_a_long_compilation_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernel_jit, "_LONG_S", 0.001)
    monkeypatch.setattr(kernel_jit, "_said", [])
    monkeypatch.setattr(kernel_jit, "_jit", lambda function, **_options: function)
    caplog.set_level(logging.WARNING, logger="fxremat")

    def slow(x: int) -> int:
        stop = time.monotonic() + 20
        while not kernel_jit._said and time.monotonic() < stop:
            time.sleep(0.002)
        return x

    first, second = kernel_jit.compiled(slow), kernel_jit.compiled(slow)
    assert (first(1), second(2)) == (1, 2)
    time.sleep(0.01)
    assert [record.getMessage()[:36] for record in caplog.records] == [
        "the search for plans is compiled, on"
    ]
