"""A graph traced on the CPU as another device would run it: blocks, times, workspaces.

The records are those of any joint graph, with storages on the other device, so that what is
deterministic there, what counts and how requests are rounded follow the usual rules. Costs are
modelled: the roofline of a `DeviceSpec`, and workspaces by the few rules in `workspace`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from fxremat.annotate.annotate import dtype_of
from fxremat.annotate.flops import is_product, node_bytes_moved, node_flops
from fxremat.capture.data_sizes import bound_data_sizes
from fxremat.capture.read import read_joint_graph
from fxremat.classify import classify
from fxremat.estimate.device import DeviceSpec
from fxremat.estimate.workspace import workspace_bytes
from fxremat.graph import Cost, JointGraph, Operation, Storage
from fxremat.lower.lowering import Lowering
from fxremat.measure.profile_ops import OpProfiles
from fxremat.memory_model import MemoryModel, allocated_bytes
from fxremat.nodes import argument_of, op_name
from fxremat.pipeline.passes import read, weigh
from fxremat.pipeline.states import Traced


def lower_for(traced: Traced, spec: DeviceSpec) -> Lowering:
    """The problem of a traced step on a device.

    On this CPU it is the one that `optimize` plans by the roofline: ops are run by themselves for
    what they allocate. On another device nothing is run.
    """
    if spec.kind == "cpu" and spec.is_measured:
        profiles = OpProfiles()
        return weigh(read(traced, profiles), "roofline", profiles).lowering
    bound_data_sizes(traced.module)
    graph = read_joint_graph(
        traced.module, traced.num_fwd_outputs, traced.static_lifetime_input_indices
    )
    moved = on_device(graph, torch.device(spec.kind, 0) if spec.kind == "cuda" else graph.device)
    return Lowering.apply(classify(with_modelled_costs(moved, spec)))


def on_device(graph: JointGraph, device: torch.device) -> JointGraph:
    """The graph with all its memory on another device, in that one's blocks."""
    moved = {
        storage: replace(storage, device=device, nbytes=allocated_bytes(storage.nbytes, device))
        for storage in graph.storages
    }

    def each(storages: tuple[Storage, ...]) -> tuple[Storage, ...]:
        return tuple(moved[storage] for storage in storages)

    return replace(
        graph,
        operations=tuple(
            replace(operation, reads=each(operation.reads), makes=each(operation.makes))
            for operation in graph.operations
        ),
        storages=each(graph.storages),
        storage_of={node: moved[storage] for node, storage in graph.storage_of.items()},
        made_by={node: each(made) for node, made in graph.made_by.items()},
        memory=MemoryModel(device),
    )


def with_modelled_costs(graph: JointGraph, spec: DeviceSpec) -> JointGraph:
    """The graph with what each operation would take on a device, by its roofline."""

    def modelled(operation: Operation) -> Operation:
        node = operation.node
        cost = Cost(
            seconds=roofline_on(node, spec),
            flops=node_flops(node),
            bytes_moved=node_bytes_moved(node),
            made_bytes={storage: storage.nbytes for storage in operation.makes},
            workspace_bytes=workspace_bytes(node),
            seconds_from="roofline",
            workspace_measured=False,
        )
        return replace(operation, cost=cost)

    return graph.with_operations([modelled(operation) for operation in graph.operations])


def roofline_on(node: fx.Node, spec: DeviceSpec) -> float:
    """Seconds of one run of a node on a device."""
    name = op_name(node.target)
    ceilings = spec.ceilings(dtype_of(node), convolution=name.startswith("convolution"))
    rate = ceilings.flops_per_s if is_product(node) else ceilings.vector_flops_per_s
    # A causal kernel skips the half of the blocks that are masked.
    share = 0.5 if "attention" in name and argument_of(node, "is_causal") else 1.0
    arithmetic = share * node_flops(node) / rate
    return max(arithmetic, node_bytes_moved(node) / ceilings.bytes_per_s) + ceilings.launch_s


def block_bytes(kind: str) -> int:
    """What the allocator of a kind of device rounds requests up to."""
    return allocated_bytes(1, torch.device(kind))
