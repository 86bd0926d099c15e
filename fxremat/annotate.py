"""Annotate each operation of a joint graph: seconds, FLOPs, bytes moved, workspace.

Cost models:

- ``"flops"``: FLOPs over the device's matrix rate. Knows nothing of memory traffic; for comparison
  with the literature.
- ``"roofline"``: the larger of FLOPs and bytes moved over the device's measured ceilings (Williams
  et al., CACM 2009), plus the time of a launch.
- ``"measured"``: each distinct op run on the device by itself.
- ``"auto"``: measured, until `MEASURING_LIMIT_S` are used up; roofline for the rest.

Workspaces are always measured, by running each distinct op once: they are part of the peak. What
must not be run by itself (`profile_ops.measurable`), or fails when it is, has the roofline's time
and the sizes of its trace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx

from fxremat.capture import JointGraph
from fxremat.device_ceilings import Ceilings, measured_ceilings
from fxremat.errors import OptionError
from fxremat.flops import is_product, node_bytes_moved, node_flops
from fxremat.memory_model import allocated_bytes
from fxremat.nodes import outputs_of, tensors_of, traced_value
from fxremat.profile_ops import OpProfiles, measurable, profile_ops, signature

COST_MODELS = ("auto", "flops", "roofline", "measured")

# How long "auto" may time ops, once in each compilation.
MEASURING_LIMIT_S = 5.0


@dataclass(frozen=True)
class Annotation:
    """What one run of an operation takes.

    `seconds_from` names the cost model that `seconds` come from; `workspace_measured` is False
    where the op could not be run by itself and its workspace is taken to be 0. `output_bytes` are
    the sizes of its outputs' storages by position, None for what is no tensor.
    """

    seconds: float
    flops: int
    bytes_moved: int
    output_bytes: tuple[int | None, ...]
    workspace_bytes: int
    seconds_from: str
    workspace_measured: bool


def check_cost_model(cost: object) -> str:
    """`cost` if it names a cost model; `OptionError` otherwise."""
    if cost not in COST_MODELS:
        raise OptionError(f"unknown cost model {cost!r}: choose one of {', '.join(COST_MODELS)}")
    return str(cost)


def annotate(joint: JointGraph, cost: str, profiles: OpProfiles) -> dict[fx.Node, Annotation]:
    """Annotations of all operations. New op profiles are added to `profiles`."""
    check_cost_model(cost)
    limit_s = {"measured": math.inf, "auto": MEASURING_LIMIT_S}.get(cost, 0.0)
    profiled = profile_ops(joint.operations, joint.device, profiles, timing_limit_s=limit_s)
    annotations: dict[fx.Node, Annotation] = {}
    for node in joint.operations:
        profile = profiled.get(signature(node)) if measurable(node) else None
        if cost in ("auto", "measured") and profile is not None and profile.seconds is not None:
            seconds, source = profile.seconds, "measured"
        else:
            seconds, source = _modelled_seconds(node, cost, joint.device)
        annotations[node] = Annotation(
            seconds=seconds,
            flops=node_flops(node),
            bytes_moved=node_bytes_moved(node),
            output_bytes=_traced_bytes(node) if profile is None else profile.output_bytes,
            workspace_bytes=profile.workspace_bytes if profile is not None else 0,
            seconds_from=source,
            workspace_measured=profile is not None,
        )
    return annotations


def _modelled_seconds(node: fx.Node, cost: str, device: torch.device) -> tuple[float, str]:
    ceilings = measured_ceilings(device.type, _dtype_of(node))
    if cost == "flops":
        return node_flops(node) / ceilings.flops_per_s, "flops"
    return roofline_seconds(node, ceilings), "roofline"


def roofline_seconds(node: fx.Node, ceilings: Ceilings) -> float:
    """Time of one run by the roofline model."""
    rate = ceilings.flops_per_s if is_product(node) else ceilings.vector_flops_per_s
    arithmetic = node_flops(node) / rate
    traffic = node_bytes_moved(node) / ceilings.bytes_per_s
    return max(arithmetic, traffic) + ceilings.launch_s


def _dtype_of(node: fx.Node) -> torch.dtype:
    """The floating point type that an op computes in."""
    for tensor in tensors_of(node):
        if tensor.dtype.is_floating_point:
            return tensor.dtype
    return torch.float32


def _traced_bytes(node: fx.Node) -> tuple[int | None, ...]:
    """The outputs' storages as traced, for an op that could not be run by itself."""
    return tuple(
        allocated_bytes(t.untyped_storage().nbytes(), t.device)
        if isinstance(t, torch.Tensor)
        else None
        for t in outputs_of(traced_value(node))
    )
