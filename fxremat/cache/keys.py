"""What figures of one machine hold for: its processor or device, torch, and how that is set up."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import Any, cast

import torch

import fxremat_solvers

# Which of the environment's variables change how kernels run, or what they allocate.
_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def hashed(*parts: object) -> str:
    """A key of anything that says what it is when it is written out."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]


def surroundings(device: torch.device) -> tuple[object, ...]:
    """What the times and workspaces of ops on a device depend on, beside the ops."""
    return (
        code(),
        torch.__version__,
        torch.version.git_version,
        _device(device),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.allow_tf32,
        [os.environ.get(name) for name in _VARIABLES],
    )


@functools.cache
def code() -> str:
    """A hash of fxremat's own sources: what another version of it planned is another plan."""
    digest = hashlib.sha256()
    for package in (Path(__file__).parents[1], Path(fxremat_solvers.__file__).parent):
        for path in sorted(package.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _device(device: torch.device) -> tuple[object, ...]:
    if device.type == "cuda":
        about = cast("Any", torch.cuda).get_device_properties(device)
        return about.name, about.total_memory, torch.version.cuda, torch.version.hip
    return device.type, _processor(), torch.backends.cpu.get_cpu_capability(), os.cpu_count()


@functools.cache
def _processor() -> str:
    """The processor's name, where the system tells; else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else f"{platform.machine()} {platform.processor()}"
