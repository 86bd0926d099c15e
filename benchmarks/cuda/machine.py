"""Where a run was made: the device, its driver, every version, and the sources that were run."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.records import environment

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("fxremat", "solvers/fxremat_solvers", "benchmarks", "tests/gpu")
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
IDENTITY = ("sources", "torch", "device_name", "allocator", "highspy", "numba")


def machine(device: str) -> dict[str, Any]:
    """Everything but the command. Imports torch and starts the device."""
    import torch

    found = environment(threads=0)
    versions = {**found["versions"], "numba": importable("numba"), "scipy": importable("scipy")}
    return {
        "commit": commit(),
        "sources": sources_digest(),
        "device": device,
        **device_facts(torch.device(device)),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "highspy": versions["highspy"],
        "numba": versions["numba"],
        "versions": versions,
        "machine": found["machine"],
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "allocator": {name: os.environ[name] for name in ALLOCATOR if name in os.environ},
    }


def device_facts(device: Any) -> dict[str, Any]:
    import torch

    if device.type != "cuda":
        return {"device_name": platform.machine()}
    about = torch.cuda.get_device_properties(device)
    return {
        "device_name": about.name,
        "capability": f"{about.major}.{about.minor}",
        "total_memory_bytes": about.total_memory,
        "multiprocessors": about.multi_processor_count,
        "driver": said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }


def importable(package: str) -> str:
    """A package's version, or why it can't be used."""
    try:
        return __import__(package).__version__
    except Exception as error:
        return f"missing ({type(error).__name__}: {str(error)[:120]})"


def commit() -> str:
    """The commit of the checkout, where there is one; FXREMAT_COMMIT says it of a bare copy."""
    told = os.environ.get("FXREMAT_COMMIT")
    if told:
        return told
    name = said("git", "rev-parse", "HEAD")
    changed = said("git", "status", "--porcelain", "--untracked-files=no")
    return f"{name}, changed" if changed else name or "unknown"


def said(*command: str) -> str:
    """The output of a command; nothing where it fails or isn't there."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def sources_digest(root: Path = ROOT) -> str:
    """Of every Python file that a run executes: a copy without its history has this, too."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def same_run(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether rows of the one may stand beside rows of the other."""
    return all(one.get(name) == other.get(name) for name in IDENTITY)
