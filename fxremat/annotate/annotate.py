"""Annotate each operation of a joint graph: seconds, FLOPs, bytes moved, workspace.

Cost models:

- ``"flops"``: FLOPs over the device's matrix rate. Knows nothing of memory traffic; for comparison
  with the literature.
- ``"roofline"``: the larger of FLOPs and bytes moved over the device's measured ceilings (Williams
  et al., CACM 2009), plus the time of a launch.
- ``"measured"``: each distinct op run on the device by itself.
- ``"auto"``: measured, until `MEASURING_LIMIT_S` are used up; roofline for the rest.

For a plan at once the two that measure take the times of the same ops at other sizes, where those
were timed: each times the ratio of the roofline's two figures.

Workspaces are always measured, by running each distinct op once: they are part of the peak. What
must not be run by itself (`profile_ops.measurable`), or fails when it is, has the roofline's time
and the sizes of its trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from fxremat.annotate.flops import is_product, node_bytes_moved, node_flops
from fxremat.errors import OptionError
from fxremat.graph import Cost, JointGraph, Operation, Storage
from fxremat.kernel import Kernel
from fxremat.measure.device_ceilings import Ceilings, measured_ceilings
from fxremat.measure.profile_ops import OpProfiles, profile_ops, signature, signatures
from fxremat.memory_model import collective_workspace, storage_bytes
from fxremat.nodes import depends_on_data, tensors_of, traced_value

COST_MODELS = ("auto", "flops", "roofline", "measured")

# How long "auto" may time ops, once in each compilation.
MEASURING_LIMIT_S = 5.0


UnitCost = Callable[[Operation, Sequence[Cost]], Cost]
"""What one run of an operation takes, given what each of its nodes takes by itself."""


def check_cost_model(cost: object) -> str:
    """`cost` if it names a cost model; `OptionError` otherwise."""
    if cost not in COST_MODELS:
        raise OptionError(f"unknown cost model {cost!r}: choose one of {', '.join(COST_MODELS)}")
    return str(cost)


def annotate(
    joint: JointGraph,
    cost: str,
    profiles: OpProfiles,
    unit_cost: UnitCost,
    like: JointGraph | None = None,
) -> JointGraph:
    """The graph with the cost of every operation. New op profiles are added to `profiles`.

    With a graph that it is `like` (`same_operations`) nothing is timed: times come from there.
    """
    check_cost_model(cost)
    costs = node_costs(joint, cost, profiles, like)

    def annotated(operation: Operation) -> Operation:
        return replace(
            operation, cost=unit_cost(operation, [costs[node] for node in operation.nodes])
        )

    return joint.with_operations([annotated(operation) for operation in joint.operations])


def node_costs(
    joint: JointGraph, cost: str, profiles: OpProfiles, like: JointGraph | None = None
) -> dict[fx.Node, Cost]:
    """What each node of the graph's operations takes when it is run by itself."""
    limit_s = {"measured": math.inf, "auto": MEASURING_LIMIT_S}.get(cost, 0.0)
    if like is not None:
        limit_s = 0.0
    keys = signatures(joint.nodes)
    profiled = profile_ops(keys, joint.device, profiles, timing_limit_s=limit_s)
    twins = {} if like is None else dict(zip(joint.nodes, like.nodes, strict=True))
    scaled: dict[str, tuple[float, str] | None] = {}
    costs: dict[fx.Node, Cost] = {}
    for node in joint.nodes:
        key = keys.get(node, "")
        profile = profiled.get(key)
        found: tuple[float, str] | None = None
        if cost in ("auto", "measured") and profile is not None:
            if profile.seconds is not None:
                found = profile.seconds, "measured"
            elif node in twins:
                if key not in scaled:
                    scaled[key] = _scaled_seconds(node, twins[node], profiles, joint.device)
                found = scaled[key]
        seconds, source = found or _modelled_seconds(node, cost, joint.device)
        by_output = storage_bytes(traced_value(node))
        if profile is not None:
            # What was picked of invented data may be less than can be.
            picked = depends_on_data(node)
            made = profile.output_bytes
            by_output = _larger(made, by_output) if picked else made
        costs[node] = Cost(
            seconds=seconds,
            flops=node_flops(node),
            bytes_moved=node_bytes_moved(node),
            made_bytes={
                storage: (by_output[storage.position] or 0)
                if joint.memory.counts(storage.device)
                else 0
                for storage in joint.made_by.get(node, ())
            },
            workspace_bytes=(
                profile.workspace_bytes if profile is not None else collective_workspace(node)
            ),
            seconds_from=source,
            workspace_measured=profile is not None,
        )
    return costs


def _larger(first: Sequence[int | None], second: Sequence[int | None]) -> tuple[int | None, ...]:
    pairs = zip(first, second, strict=True)
    return tuple(None if a is None else max(a, b or 0) for a, b in pairs)


def same_operations(joint: JointGraph, other: JointGraph) -> bool:
    """Whether two graphs run the same ops in order on the same data flow, at any sizes."""
    return _data_flow(joint) == _data_flow(other)


def _data_flow(joint: JointGraph) -> list[tuple[Any, ...]]:
    """The ops of each operation, and its storages by the order in which they first come up.

    Not by name: Dynamo makes numbers of sizes from the second shape on, and counts them as inputs.
    """
    numbers: dict[Storage, int] = {}
    return [
        (
            *(_called(node) for node in operation.nodes),
            *(numbers.setdefault(s, len(numbers)) for s in operation.reads),
            *(numbers.setdefault(s, len(numbers)) for s in operation.makes),
        )
        for operation in joint.operations
    ]


def _called(node: fx.Node) -> Any:
    """What a node calls; a kernel, which is compiled for each size, by its name."""
    return node.target.name if isinstance(node.target, Kernel) else node.target


def _scaled_seconds(
    node: fx.Node, twin: fx.Node, profiles: OpProfiles, device: torch.device
) -> tuple[float, str] | None:
    """The time of the same op at another size, times what the roofline says of the two sizes."""
    known = profiles.by_signature.get(signature(twin))
    if known is None or known.seconds is None:
        return None
    ceilings = measured_ceilings(device.type, dtype_of(node))
    ratio = roofline_seconds(node, ceilings) / roofline_seconds(twin, ceilings)
    return known.seconds * ratio, "scaled"


def _modelled_seconds(node: fx.Node, cost: str, device: torch.device) -> tuple[float, str]:
    ceilings = measured_ceilings(device.type, dtype_of(node))
    if cost == "flops":
        return node_flops(node) / ceilings.flops_per_s, "flops"
    return roofline_seconds(node, ceilings), "roofline"


def roofline_seconds(node: fx.Node, ceilings: Ceilings) -> float:
    """Time of one run by the roofline model."""
    rate = ceilings.flops_per_s if is_product(node) else ceilings.vector_flops_per_s
    arithmetic = node_flops(node) / rate
    traffic = node_bytes_moved(node) / ceilings.bytes_per_s
    return max(arithmetic, traffic) + ceilings.launch_s


def dtype_of(node: fx.Node) -> torch.dtype:
    """The floating point type that an op computes in."""
    for tensor in tensors_of(node):
        if tensor.dtype.is_floating_point:
            return tensor.dtype
    return torch.float32
