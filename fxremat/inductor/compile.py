"""Compile a joint graph once, however often it is planned."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.inductor_hooks import Pair, compile_pair, configuration
from fxremat.nodes import attribute

# What was compiled of each graph, while something plans or runs it.
_PAIRS: WeakValueDictionary[str, Pair] = WeakValueDictionary()


def compiled(joint: fx.GraphModule, num_fwd_outputs: int, static: Sequence[int]) -> Pair:
    """The kernels of a joint graph: those of an equal one, where they are still there.

    The joint graph is changed. Budgets, and all that is said of planning, play no part in it.
    """
    key = None if _holds_tensors(joint) else _description(joint, num_fwd_outputs)
    found = None if key is None else _PAIRS.get(key)
    if found is not None:
        return found
    pair = compile_pair(
        joint, num_fwd_outputs=num_fwd_outputs, static_lifetime_input_indices=static
    )
    if key is not None:
        _PAIRS[key] = pair
    return pair


def _holds_tensors(joint: fx.GraphModule) -> bool:
    """Whether a graph has tensors, or graphs, of its own, which two graphs can't be told by."""
    return any(attribute(node) is not None for node in joint.graph.find_nodes(op="get_attr"))


def _description(joint: fx.GraphModule, num_fwd_outputs: int) -> str:
    """What Inductor looks at: ops, their arguments, and how each result lies in memory."""
    lines = [f"{num_fwd_outputs} {configuration()}"]
    for node in joint.graph.nodes:
        layout = torch_hooks.tree_map(_layout, node.meta.get("val"))
        tag = node.meta.get("partitioner_tag")
        lines.append(
            f"{node.op} {node.name} {node.target} {node.args} {node.kwargs} {layout} {tag}"
        )
    return "\n".join(lines)


def _layout(value: object) -> object:
    if not isinstance(value, torch.Tensor):
        return str(value)
    stride, offset = tuple(value.stride()), value.storage_offset()
    return value.dtype, tuple(value.shape), stride, offset, value.device, value.requires_grad
