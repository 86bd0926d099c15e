"""Devices as an estimate knows them: how fast, how large, by which allocator's rules.

Rates are the vendors' peaks of dense arithmetic, of which long kernels reach a share: usual ones
for products and copies; that of convolutions, and the time that Python takes for an op, are from a
VGG's and three models' steps on an H200 (docs/estimate.md). "cpu" is this machine, measured when it
is asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch

from fxremat.errors import OptionError
from fxremat.measure.device_ceilings import Ceilings, measured_ceilings

_TERA, _GIGA, _GIB = 10**12, 10**9, 2**30

# Types that have a rate of their own; half precisions share one.
_RATE_OF = {
    torch.float16: "half",
    torch.bfloat16: "half",
    torch.float32: "float32",
    torch.float64: "float64",
}


@dataclass(frozen=True)
class DeviceSpec:
    """A device to estimate for. Rates a second, sizes in bytes.

    `kind` is the type of torch's device, whose allocator's rules hold (`memory_model`).
    `product_flops` are the peaks of matrix products by "half", "tf32", "float32" and "float64";
    of these "tf32" is for convolutions in float32 alone, as is torch's default. `vector_flops` is
    that of other arithmetic, `bandwidth` of its memory and `host_bandwidth` of its link to the
    host. The shares say how much of a peak is reached. `launch_s` is the least time of an op on the
    device, `dispatch_s` what Python takes for one meanwhile. `capacity_bytes` is what torch can
    allocate, of which `reserved_bytes` go to libraries. `source` says where the figures are from.
    """

    name: str
    kind: str
    product_flops: Mapping[str, float]
    vector_flops: float
    bandwidth: float
    capacity_bytes: int
    launch_s: float = 5e-6
    host_bandwidth: float = 25 * _GIGA
    reserved_bytes: int = 0
    product_share: float = 0.7
    convolution_share: float = 0.25
    traffic_share: float = 0.8
    dispatch_s: float = 40e-6
    source: str = "given"
    is_measured: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in ("cpu", "cuda"):
            raise OptionError(f"kind is {self.kind!r}: a DeviceSpec is of a 'cpu' or a 'cuda'")
        if "float32" not in self.product_flops:
            raise OptionError("product_flops has no 'float32', by which other types are told")
        rates = {f"product_flops[{k!r}]": v for k, v in self.product_flops.items()}
        rates |= {"vector_flops": self.vector_flops, "bandwidth": self.bandwidth}
        rates |= {"capacity_bytes": self.capacity_bytes, "host_bandwidth": self.host_bandwidth}
        for what, rate in rates.items():
            if not (math.isfinite(rate) and rate > 0):
                raise OptionError(f"{what} is {rate}: it must be a finite number above 0")
        for what in ("product_share", "convolution_share", "traffic_share"):
            if not 0 < getattr(self, what) <= 1:
                raise OptionError(f"{what} is {getattr(self, what)}: it must be in (0, 1]")
        if self.launch_s < 0 or self.dispatch_s < 0:
            raise OptionError("launch_s and dispatch_s must not be negative")
        if not 0 <= self.reserved_bytes < self.capacity_bytes:
            raise OptionError("reserved_bytes must not be negative, nor all that there is")

    @property
    def usable_bytes(self) -> int:
        """What is left for a model and its step."""
        return self.capacity_bytes - self.reserved_bytes

    def ceilings(self, dtype: torch.dtype, *, convolution: bool = False) -> Ceilings:
        """What the roofline asks of a device, for a floating point type."""
        kind = _RATE_OF.get(dtype, "half" if dtype.itemsize < 4 else "float32")
        if kind == "float32" and convolution:
            kind = "tf32"
        rate = self.product_flops.get(kind, self.product_flops["float32"])
        return Ceilings(
            flops_per_s=rate * (self.convolution_share if convolution else self.product_share),
            vector_flops_per_s=self.vector_flops * self.traffic_share,
            bytes_per_s=self.bandwidth * self.traffic_share,
            launch_s=self.launch_s,
        )


def _gpu(
    name: str,
    half: float,
    tf32: float,
    float32: float,
    float64: float,
    bandwidth: float,
    gib: float,
    host: float,
    source: str,
) -> DeviceSpec:
    """A GPU by its data sheet: TFLOP/s and GB/s; `gib` is what torch counts as its memory."""
    peaks = {"half": half, "tf32": tf32, "float32": float32, "float64": float64}
    return DeviceSpec(
        name=name,
        kind="cuda",
        product_flops=MappingProxyType({key: rate * _TERA for key, rate in peaks.items()}),
        vector_flops=float32 * _TERA,
        bandwidth=bandwidth * _GIGA,
        capacity_bytes=int(gib * _GIB),
        host_bandwidth=host * _GIGA,
        reserved_bytes=_GIB,  # context, kernels, the workspaces of cuBLAS and cuDNN
        source=source,
    )


_DEVICES = (
    _gpu("a100-40", 312, 156, 19.5, 19.5, 1555, 39.4, 32, "NVIDIA A100 data sheet, SXM4 40 GB"),
    _gpu("a100-80", 312, 156, 19.5, 19.5, 2039, 79.1, 32, "NVIDIA A100 data sheet, SXM4 80 GB"),
    _gpu("h100", 989.4, 494.7, 66.9, 66.9, 3350, 79.1, 64, "NVIDIA H100 data sheet, SXM5 80 GB"),
    _gpu("h200", 989.4, 494.7, 66.9, 66.9, 4800, 139.8, 64, "NVIDIA H200 data sheet, SXM 141 GB"),
    _gpu("b200", 2250, 1125, 75, 37, 7700, 178.3, 64, "NVIDIA DGX B200 data sheet, one of eight"),
    _gpu("l4", 121, 60, 30.3, 0.49, 300, 22.0, 32, "NVIDIA L4 data sheet, without sparsity"),
    _gpu("rtx-4090", 165.2, 82.6, 82.6, 1.3, 1008, 23.5, 32, "NVIDIA Ada architecture white paper"),
    _gpu("mi300x", 1307.4, 653.7, 163.4, 163.4, 5300, 191.5, 64, "AMD MI300X data sheet, OAM"),
)

DEVICES: Mapping[str, DeviceSpec] = MappingProxyType({each.name: each for each in _DEVICES})
"""The known devices by name, beside "cpu"."""

THIS_CPU = "cpu"


def device_of(device: str | DeviceSpec) -> DeviceSpec:
    """The spec of a known device, or one that is given. Raises `OptionError` for another."""
    if isinstance(device, DeviceSpec):
        return device
    name = device.lower().replace("_", "-").replace(" ", "-")
    if name == THIS_CPU:
        return this_cpu()
    if name not in DEVICES:
        known = ", ".join((*DEVICES, THIS_CPU))
        raise OptionError(
            f"unknown device {device!r}: choose one of {known}, or give a fxremat.DeviceSpec"
        )
    return DEVICES[name]


def this_cpu() -> DeviceSpec:
    """The processor that this runs on, with the threads that torch has, measured now."""
    ceilings = measured_ceilings("cpu", torch.float32)
    half = measured_ceilings("cpu", torch.bfloat16)
    return DeviceSpec(
        name=THIS_CPU,
        kind="cpu",
        product_flops=MappingProxyType({"float32": ceilings.flops_per_s, "half": half.flops_per_s}),
        vector_flops=ceilings.vector_flops_per_s,
        bandwidth=ceilings.bytes_per_s,
        capacity_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        launch_s=ceilings.launch_s,
        host_bandwidth=ceilings.bytes_per_s,
        product_share=1.0,
        convolution_share=1.0,
        traffic_share=1.0,
        dispatch_s=0.0,  # in launch_s
        source=f"measured now, {torch.get_num_threads()} threads",
        is_measured=True,
    )


def with_capacity(spec: DeviceSpec, capacity_bytes: int) -> DeviceSpec:
    """The same device with more or less memory."""
    return replace(spec, capacity_bytes=capacity_bytes)
