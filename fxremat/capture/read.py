"""Read AOTAutograd's joint graph: which nodes are work, which are views, who owns which memory.

A *storage* is a block of memory. Views, `detach` and `getitem` alias the storage they read and
are free; only nodes that make a new storage, or have an effect, are operations to schedule.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.errors import DeviceError, SymbolicSizeError, UnsupportedGraphError
from fxremat.graph import JointGraph, Operation, Storage
from fxremat.measure.profile_ops import measurable
from fxremat.memory_model import MemoryModel, allocated_bytes
from fxremat.nodes import (
    MADE_BY_CALL,
    argument_by_storage,
    attribute,
    inner_graphs,
    is_effect,
    is_mutable,
    is_number_of_data,
    is_op,
    op_name,
    outputs_of,
    tensors_of,
    traced_value,
)

aten = torch.ops.aten


def read_joint_graph(
    module: fx.GraphModule,
    num_fwd_outputs: int,
    static_lifetime_input_indices: Sequence[int] = (),
    memory: Callable[[torch.device], MemoryModel] = MemoryModel,
) -> JointGraph:
    """Read a joint graph, one operation a node. The module is not changed.

    `memory` makes the model of what counts on the device that the graph turns out to be on.

    Raises `UnsupportedGraphError` for what can't be planned exactly (operators with graphs inside,
    symbolic sizes, storages that are not plain memory, in-place mutation other than a buffer
    update).
    """
    fwd_outputs, bwd_outputs, _, _ = torch_hooks.joint_outputs(module, num_fwd_outputs)
    forward_outputs = tuple(node for node in fwd_outputs if isinstance(node, fx.Node))
    gradients = tuple(node for node in bwd_outputs if isinstance(node, fx.Node))
    nodes = list(module.graph.nodes)
    effects = [node for node in nodes if is_effect(node)]
    live = _ancestors((*forward_outputs, *gradients, *effects))
    for node in nodes:
        if node in live and inner_graphs(node) and not measurable(node):
            raise graphs_inside(f"{node.name} ({node.target})")
    placeholders = [node for node in nodes if node.op == "placeholder"]
    storages, storage_of, made_by = _find_storages(
        [node for node in nodes if node in live or node.op == "placeholder"]
    )
    work = [n for n in nodes if n in live and (n in made_by or n in effects) and _is_call(n)]
    for node in work:
        _check_supported(node, storage_of)
    needed_forward = _ancestors(forward_outputs)
    forward = [n for n in work if n in needed_forward or _runs_in_forward(n)]
    # Buffer updates come last in a joint graph; they belong to the end of the forward part.
    forward.sort(key=lambda node: node.target is aten.copy_.default)
    in_forward = set(forward)
    backward = [node for node in work if node not in in_forward]

    def operation(node: fx.Node) -> Operation:
        return Operation((node,), tuple(_reads(node, storage_of, made_by)), made_by.get(node, ()))

    return JointGraph(
        module=module,
        num_fwd_outputs=num_fwd_outputs,
        operations=tuple(operation(node) for node in (*forward, *backward)),
        first_backward=len(forward),
        storages=storages,
        storage_of=storage_of,
        made_by=made_by,
        made_by_call=tuple(n for n in placeholders if n in storage_of and MADE_BY_CALL in n.meta),
        tangents=tuple(n for n in placeholders if torch_hooks.is_tangent(n) and n in storage_of),
        forward_outputs=tuple(n for n in forward_outputs if n in storage_of),
        gradients=tuple(n for n in gradients if n in storage_of),
        memory=memory(_device_of(storages)),
        static_lifetime_input_indices=tuple(static_lifetime_input_indices),
    )


def _reads(
    node: fx.Node, storage_of: Mapping[fx.Node, Storage], made_by: Mapping[fx.Node, object]
) -> dict[Storage, None]:
    """The storages that a node needs: of what it reads, and the numbers that views of it take."""
    found: dict[Storage, None] = {}
    stack = list(reversed(node.all_input_nodes))
    while stack:
        arg = stack.pop()
        if arg not in storage_of:
            continue
        found[storage_of[arg]] = None
        if arg not in made_by:
            numbers = [each for each in arg.all_input_nodes if is_number_of_data(each)]
            stack += [*numbers, *(each for each in arg.all_input_nodes if each not in numbers)]
    return found


def _is_call(node: fx.Node) -> bool:
    return node.op == "call_function"


def _ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        stack.extend(node.all_input_nodes)
    return found


def _runs_in_forward(node: fx.Node) -> bool:
    return node.meta.get("partitioner_tag") in ("is_forward", "must_be_in_forward")


def _find_storages(
    nodes: Sequence[fx.Node],
) -> tuple[tuple[Storage, ...], dict[fx.Node, Storage], dict[fx.Node, tuple[Storage, ...]]]:
    """One walk in graph order: a storage not seen before belongs to the node that shows it.

    Inputs that share memory (two parts of one batch) are a storage each: they belong to the caller,
    and their views stay views of the input that they are taken from.
    """
    by_key: dict[int, Storage] = {}
    storages: list[Storage] = []
    storage_of: dict[fx.Node, Storage] = {}
    made_by: dict[fx.Node, tuple[Storage, ...]] = {}
    for node in nodes:
        if node.op == "output":
            continue
        value = traced_value(node)
        if node.op == "get_attr" and value is None:
            value = attribute(node)
        if node.target is operator.getitem and node.args[0] in made_by:
            # An output of an operation: made there.
            for tensor in tensors_of(node):
                storage_of[node] = by_key[torch_hooks.storage_key(tensor)]
            continue
        made: list[Storage] = []
        if is_number_of_data(node):
            number = Storage(len(storages), node, 0, 0, False, torch.device("cpu"))
            storages.append(number)
            storage_of[node] = number
            made_by[node] = (number,)
            continue
        several = isinstance(value, (tuple, list))
        read = {
            key: storage_of[arg]
            for key, arg in argument_by_storage(node).items()
            if arg in storage_of
        }
        for position, tensor in enumerate(outputs_of(value)):
            if not isinstance(tensor, torch.Tensor):
                continue
            if tensor.layout is not torch.strided:
                raise UnsupportedGraphError(
                    f"{node.name} is a {tensor.layout} tensor: only dense (strided) tensors can "
                    "be planned; keep sparse parts out of the optimized function"
                )
            key = torch_hooks.storage_key(tensor)
            known = None if node.op == "placeholder" else by_key.get(key)
            storage = read.get(key, known)
            if storage is None:
                nbytes: Any = tensor.untyped_storage().nbytes()
                if not isinstance(nbytes, int):
                    raise SymbolicSizeError(
                        f"{node.name} takes {nbytes} bytes, a number that is not known before it "
                        "runs: plans are made for fixed sizes"
                    )
                storage = Storage(
                    index=len(storages),
                    maker=node,
                    position=position,
                    nbytes=allocated_bytes(nbytes, tensor.device),
                    resident=node.op == "get_attr" or _is_resident(node),
                    device=tensor.device,
                )
                by_key[key] = storage
                storages.append(storage)
                made.append(storage)
            if not several:
                storage_of[node] = storage
            elif storage not in made:
                # A multi-output view (split, unbind): the tuple itself is an alias.
                storage_of[node] = storage
        if made:
            made_by[node] = tuple(made)
            if several and node in storage_of:
                raise UnsupportedGraphError(
                    f"{node.name} returns new memory and a view of its input at once; "
                    "fxremat can't plan that"
                )
    return tuple(storages), storage_of, made_by


def _is_resident(node: fx.Node) -> bool:
    if node.op != "placeholder":
        return False
    return not torch_hooks.is_tangent(node) and MADE_BY_CALL not in node.meta


def _device_of(storages: Sequence[Storage]) -> torch.device:
    """The device that the step's memory is on; CPU tensors beside a GPU are no second device."""
    devices = {s.device for s in storages if s.device.type != "cpu"}
    if any(device.type == "meta" for device in devices):
        raise DeviceError(ON_META)
    if len(devices) > 1:
        raise DeviceError(
            f"the graph spans {sorted(map(str, devices))}: one budget is for one device; "
            "optimize the part on each device by itself"
        )
    return devices.pop() if devices else torch.device("cpu")


ON_META = (
    "the model is on the meta device, where nothing is allocated and no numbers are: put it on a "
    "real one first (model.to_empty(device=...), then load its parameters)"
)


# Recurrent kernels that keep a buffer from forward to backward which their trace gives no size.
_RNN_KERNELS = frozenset(
    {
        "mkldnn_rnn_layer",
        "mkldnn_rnn_layer_backward",
        "_cudnn_rnn",
        "_cudnn_rnn_backward",
        "miopen_rnn",
        "miopen_rnn_backward",
    }
)


def graphs_inside(what: str) -> UnsupportedGraphError:
    """The refusal of an operator that holds graphs, or of a region compiled by itself.

    Those of cond, map and scan are measured, where they hold nothing that must not be.
    """
    return UnsupportedGraphError(
        f"{what} has graphs inside: what they allocate can't be counted, so no budget could be "
        "kept. Write it in plain tensor ops (a Python loop of fixed length or scan for while_loop, "
        "torch's own ops in the branches of cond and the bodies of map and scan, "
        "scaled_dot_product_attention for flex_attention, a call without nested_compile_region), "
        "or keep it out of the optimized function"
    )


def _check_supported(node: fx.Node, storage_of: Mapping[fx.Node, Storage]) -> None:
    target = node.target
    if op_name(target) in _RNN_KERNELS:
        raise UnsupportedGraphError(
            f"{node.name} ({target}) is a recurrent kernel that keeps a buffer for backward, whose "
            "size is not in the traced graph, so no budget could be kept. Call "
            "torch.backends.mkldnn.set_flags(False) before training (on a GPU "
            "torch.backends.cudnn.enabled = False): the layer is then traced in plain ops, one "
            "time step after the other. Or use nn.GRU or nn.RNN on the CPU, or write the loop over "
            "nn.LSTMCell"
        )
    if is_mutable(target):
        source = node.args[0] if node.args else None
        if (
            target is not aten.copy_.default
            or not isinstance(source, fx.Node)
            or not storage_of[source].resident
        ):
            raise UnsupportedGraphError(
                f"{node.name} ({target}) changes memory in place inside the traced graph; fxremat "
                "plans functional graphs and buffer updates only: keep this op out of the "
                "optimized function"
            )
    for arg in node.all_input_nodes:
        if torch_hooks.is_symbolic(traced_value(arg)) and not _is_given(arg):
            raise SymbolicSizeError(
                f"{node.name} depends on {arg.name}, a number that is not known before the step "
                "runs: keep that part out of the optimized function"
            )


def _is_given(number: fx.Node) -> bool:
    """Whether a Python number is an input of the graph, or computed from such alone."""
    return all(
        node.op == "placeholder" or (_is_call(node) and not is_op(node.target))
        for node in _ancestors([number])
    )
