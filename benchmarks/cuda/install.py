"""Installs, without network, the wheels of a folder whose packages can't be imported here.

Into a folder of its own that goes before the environment on the path: the environment, maybe an
image's, stays as it is. No dependencies are resolved: the folder is to hold what is needed, and
what the environment has (torch, numpy) must not be replaced.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MODULES = {
    "markdown_it_py": "markdown_it",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "importlib_metadata": "importlib_metadata",
}
"""The module of a package, where its name is another."""

CLASHES = {"highspy": "1.16"}
"""Releases from which on a package is replaced though it is there (see pyproject.toml)."""


def install(wheels: Path, site: Path, limit_s: float) -> Iterator[str]:
    """What was done, in words. Wheels may lie in folders below `wheels`."""
    found = {package_of(path): path for path in sorted(wheels.rglob("*.whl"))}
    if not found:
        yield f"{wheels}: no wheels"
        return
    missing = [path for name, path in found.items() if not usable(name, site)]
    if not missing:
        yield f"{len(found)} wheels: all of these packages are here"
        return
    words = ["--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(site)]
    command = [sys.executable, "-m", "pip", "install", "-q", *words, *map(str, missing)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, limit_s))
    except subprocess.TimeoutExpired:
        yield "installing the wheels took all of the time"
        return
    names = ", ".join(package_of(path) for path in missing)
    yield f"installed {names}" if done.returncode == 0 else f"pip failed: {done.stderr[-700:]}"


def package_of(wheel: Path) -> str:
    return wheel.name.partition("-")[0].lower()


def usable(package: str, site: Path) -> bool:
    """Whether a new process can import the package, with what was installed first on its path."""
    module = MODULES.get(package, package)
    check = f"import {module}"
    if package in CLASHES:
        check += (
            "; from importlib.metadata import version"
            f"; assert tuple(map(int, version({package!r}).split('.')[:2])) < "
            f"{tuple(map(int, CLASHES[package].split('.')))}"
        )
    path = os.pathsep.join(p for p in (str(site), os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-c", check],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
