"""The two ceilings of a device: how fast it multiplies matrices, how fast it moves bytes.

Measured in a fraction of a second, once for a device and type, and kept in the cache on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import msgspec
import torch

from fxremat import torch_hooks
from fxremat.cache import store
from fxremat.cache.keys import hashed, surroundings

_KIND = "ceilings"


@dataclass(frozen=True)
class Ceilings:
    """`flops_per_s` of a matrix product, `vector_flops_per_s` of elementwise arithmetic,
    `bytes_per_s` read and written by a copy, `launch_s` the least time of any op."""

    flops_per_s: float
    vector_flops_per_s: float
    bytes_per_s: float
    launch_s: float


@cache
def measured_ceilings(device_type: str, dtype: torch.dtype) -> Ceilings:
    """The ceilings of a device for a floating point type: an earlier process's, or measured now."""
    device = torch.device(device_type)
    key = hashed(surroundings(device), dtype)
    known = store.read(_KIND, key, msgspec.json.Decoder(Ceilings).decode)
    if known is None:
        known = _measured(device, dtype)
        store.write(_KIND, key, msgspec.json.encode(known))
    return known


def _measured(device: torch.device, dtype: torch.dtype) -> Ceilings:
    gpu = device.type == "cuda"
    with torch_hooks.real_ops(device):
        size = 4096 if gpu else 768
        a = torch.full((size, size), 0.5, dtype=dtype, device=device)
        product_s = _best_seconds(lambda: torch.mm(a, a), device)
        count = 2**26 if gpu else 2**22
        source = torch.full((count,), 0.5, dtype=torch.float32, device=device)
        target = torch.empty_like(source)
        copy_s = _best_seconds(lambda: target.copy_(source), device)
        # erf: some 30 instructions an element, and in no cache's way.
        few = source[: count // 8]
        vector_s = _best_seconds(lambda: torch.erf(few, out=target[: count // 8]), device)
        tiny = torch.ones(1, device=device)
        launch_s = _best_seconds(lambda: torch.add(tiny, tiny), device)
    return Ceilings(
        flops_per_s=2 * size**3 / product_s,
        vector_flops_per_s=30 * (count // 8) / vector_s,
        bytes_per_s=2 * 4 * count / copy_s,
        launch_s=launch_s,
    )


def _best_seconds(run: Callable[[], object], device: torch.device) -> float:
    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    best = float("inf")
    for _ in range(5):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        best = min(best, time.perf_counter() - start)
    return best
