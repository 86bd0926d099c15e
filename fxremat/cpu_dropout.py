"""Dropout on the CPU in two ops instead of one: drawing the mask, and applying it.

`aten::native_dropout` draws a mask and applies it at once. Drawing is slow on the CPU (one
sequential generator: as long as a softmax and a matmul together), applying is not, and the mask
takes a quarter of the bytes of the result. Apart, a plan can keep the mask and apply it again.

Applying is faster than torch's, too: torch converts the bool mask element by element, eight times
slower than from bytes, and in backward through more buffers than the result. Here the mask is
read as the bytes that it is, into the result's own memory. The bits are the same: the generator is
drawn from in the same way, and factors are multiplied in the same order.

On CUDA, where drawing costs nearly nothing and kernels are fused, nothing is replaced.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from fxremat import torch_hooks
from fxremat.nodes import argument_of, input_tensors, tensors_of, traced_value

aten = torch.ops.aten

torch.library.define(
    "fxremat::dropout_mask",
    "(int[] size, int[] stride, float p, *, Device device) -> Tensor",
    tags=(torch.Tag.nondeterministic_seeded,),
)
torch.library.define("fxremat::apply_mask", "(Tensor x, Tensor mask, float scale) -> Tensor")


@torch.library.impl("fxremat::dropout_mask", "default")
def dropout_mask(
    size: Sequence[int], stride: Sequence[int], p: float, *, device: torch.device
) -> Tensor:
    """A bool mask of dropout, unset with probability p, as `aten::native_dropout` draws it."""
    mask = torch.empty_strided(size, stride, dtype=torch.bool, device=device)
    return mask.bernoulli_(1 - p)


@torch.library.impl("fxremat::apply_mask", "cpu")
def apply_mask(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`x * mask * scale`, with no other buffer than the result."""
    return torch.empty_like(x).copy_(mask.view(torch.int8)).mul_(x).mul_(scale)


def split_dropout(joint: fx.GraphModule) -> None:
    """Write a traced graph's dropouts in these ops, in place, wherever the bits are the same."""
    for node in joint.graph.find_nodes(op="call_function", target=aten.native_dropout.default):
        if _can_replace(node):
            _split(node)
    for node in joint.graph.find_nodes(
        op="call_function", target=aten.native_dropout_backward.default
    ):
        if _can_replace(node):
            node.target = torch.ops.fxremat.apply_mask.default


def _can_replace(node: fx.Node) -> bool:
    """On the CPU, in training, with a bool mask, all tensors in one dense layout."""
    if node.target is aten.native_dropout.default:
        p = argument_of(node, "p")
        if argument_of(node, "train") is False or not isinstance(p, float) or not 0 < p < 1:
            return False
    first, *others = (*input_tensors(node), *tensors_of(node))
    return (
        first.device.type == "cpu"
        and first.dtype.is_floating_point
        and [t.dtype for t in others].count(torch.bool) == 1
        and torch.empty_like(first).stride() == first.stride()  # dense: what ours would make
        and all(t.shape == first.shape and t.stride() == first.stride() for t in others)
    )


def _split(node: fx.Node) -> None:
    x, p = node.args[0], float(argument_of(node, "p"))
    result, mask = traced_value(node)
    with torch_hooks.real_ops(mask.device):
        # torch's forward rounds the scale to the result's type, its backward does not.
        scale = torch.tensor(1 / (1 - p), dtype=result.dtype).item()
    with node.graph.inserting_before(node):
        drawn = node.graph.create_node(
            "call_function",
            torch.ops.fxremat.dropout_mask.default,
            (tuple(mask.shape), mask.stride(), p),
            {"device": mask.device},
            name=f"{node.name}_mask",
        )
        applied = node.graph.create_node(
            "call_function",
            torch.ops.fxremat.apply_mask.default,
            (x, drawn, scale),
            name=f"{node.name}_output",
        )
    # What tracing knew of the dropout, its source line too, it knows of both.
    drawn.meta = {**node.meta, "val": mask}
    applied.meta = {**node.meta, "val": result}
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(applied if user.args[1] == 0 else drawn)
        node.graph.erase_node(user)
    node.graph.erase_node(node)
