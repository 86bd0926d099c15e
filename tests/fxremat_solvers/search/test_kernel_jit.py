"""Compiled functions are cached, and a cache that is damaged or can't be written is no failure."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fxremat_solvers
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


def test_code_that_is_cached_is_renewed_when_a_part_of_it_changes() -> None:
    """numba sees a change in the file of the function that is cached, and no other."""
    for path in Path(fxremat_solvers.__file__).parent.rglob("*.py"):
        decorators = set(re.findall(r"^@(part|spliced|compiled)$", path.read_text(), re.MULTILINE))
        if decorators and path not in kernel_jit.sources():
            assert "compiled" in decorators, f"{path.name}: call it kernel_..."


@pytest.mark.parametrize("misses", [1, 0])
def test_a_long_compilation_is_said_once(
    misses: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernel_jit, "_LONG_S", 0.001)
    monkeypatch.setattr(kernel_jit, "_said", [])
    monkeypatch.setattr(kernel_jit, "_jit", lambda function, **_options: function)
    caplog.set_level(logging.WARNING, logger="fxremat")
    asked: list[int] = []

    class Stats:
        @property
        def cache_misses(self) -> int:
            asked.append(misses)
            return misses

    def slow(x: int) -> int:
        stop = time.monotonic() + 20
        while not asked and time.monotonic() < stop:
            time.sleep(0.002)
        time.sleep(0.02)
        return x

    slow.stats = Stats()  # type: ignore[attr-defined]
    first, second = kernel_jit.compiled(slow), kernel_jit.compiled(slow)
    assert (first(1), second(2)) == (1, 2)
    assert asked
    assert [record.getMessage()[:36] for record in caplog.records] == [
        "the search for plans is compiled, on"
    ] * misses
