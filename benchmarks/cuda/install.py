"""Installs, without network, the wheels of a folder whose packages can't be used here.

Into a folder of its own that goes before the environment on the path: the environment, maybe an
image's, stays as it is. Dependencies aren't resolved: the folder is to hold what is needed, and
what the environment has (torch, numpy) must not be replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

IMPORTED = (
    "pulp",
    "highspy",
    "msgspec",
    "rich",
    "pytest",
    "scipy",
    "numba",
    "transformers",
    "diffusers",
)
"""Imported to see whether they work: an image's may not fit its numpy. Others need to be there."""

TOGETHER = {
    "numba": ("llvmlite",),
    "transformers": ("tokenizers", "huggingface_hub", "safetensors"),
}
"""Whoever is replaced takes these along, which are made for it."""

BELOW = {"highspy": (1, 16)}
"""Releases from which on a package is replaced though it is there (see pyproject.toml)."""

_CHECK = """
import importlib, json, sys
from importlib.metadata import PackageNotFoundError, version
for package in sys.argv[1:]:
    try:
        found = version(package)
        if package in {imported}:
            importlib.import_module(package)
    except Exception:
        continue
    print(json.dumps([package, found]), flush=True)
"""


def install(wheels: Path, site: Path, limit_s: float) -> Iterator[str]:
    """What was done, in words. Wheels may lie in folders below `wheels`."""
    found = {package_of(path): path for path in sorted(wheels.rglob("*.whl"))}
    if not found:
        yield f"{wheels}: no wheels"
        return
    missing = lacking(found, usable(found, site))
    if not missing:
        yield f"{len(found)} wheels: all of these packages are here"
        return
    words = ["--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(site)]
    paths = [str(found[package]) for package in missing]
    command = [sys.executable, "-m", "pip", "install", "-q", *words, *paths]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, limit_s))
    except subprocess.TimeoutExpired:
        yield "installing the wheels took all of the time"
        return
    said = f"installed {', '.join(missing)}" if done.returncode == 0 else done.stderr[-700:]
    yield said if done.returncode == 0 else f"pip failed: {said}"


def package_of(wheel: Path) -> str:
    return wheel.name.partition("-")[0].lower()


def lacking(carried: Iterable[str], versions: Mapping[str, str]) -> list[str]:
    """The carried packages to install, by the versions of those that can be used."""
    carried = list(carried)
    missing = {name for name in carried if name not in versions or too_new(name, versions[name])}
    for name, others in TOGETHER.items():
        if name in missing:
            missing |= {other for other in others if other in carried}
    return sorted(missing)


def too_new(package: str, version: str) -> bool:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return package in BELOW and numbers >= BELOW[package]


def usable(packages: Iterable[str], site: Path) -> dict[str, str]:
    """Versions of the packages that a new process can use, what was installed first on its path.

    A package that takes the process along when it is imported counts as one that can't be used,
    and so do those after it.
    """
    path = os.pathsep.join(p for p in (str(site), os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-c", _CHECK.replace("{imported}", repr(IMPORTED)), *packages],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
