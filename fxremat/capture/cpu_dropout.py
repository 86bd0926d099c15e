"""Dropout on the CPU in two ops instead of one: drawing the mask, and applying it.

`aten::native_dropout` draws a mask and applies it at once. Drawing is slow on the CPU (one
generator, an element at a time), applying is not, and the mask takes a quarter of the bytes of the
result. Apart, a plan can keep the mask and apply it again.

Applying is faster than torch's, too: torch converts the bool mask element by element, eight times
slower than from bytes, and in backward through more buffers than the result. Here the mask is
read as the bytes that it is, into the result's own memory.

The bits are those of the model in eager, where `torch.nn.functional.dropout` divides the mask by
1 - p in the input's type and multiplies by that both ways. (`aten::native_dropout`, which a traced
graph has in its place, rounds in another order: of p = 0.01 to 0.99, 15 differ in float32, and 85
in half precision, where backward does.)

On CUDA, where drawing costs nearly nothing and kernels are fused, nothing is replaced.
"""

# torch.library's annotations are loose.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, fx

from fxremat import torch_hooks
from fxremat.nodes import argument_of, input_tensors, tensors_of, traced_value

aten = torch.ops.aten

torch.library.define(
    "fxremat::dropout_mask",
    "(Tensor like, float p) -> Tensor",
    tags=(torch.Tag.nondeterministic_seeded,),
)
torch.library.define("fxremat::apply_mask", "(Tensor x, Tensor mask, float scale) -> Tensor")


@torch.library.impl("fxremat::dropout_mask", "cpu")
def dropout_mask(like: Tensor, p: float) -> Tensor:
    """A bool mask of dropout, unset with probability p, as torch draws it for that tensor.

    The tensor is there for its strides: which element gets which draw depends on them, and those
    of a traced tensor are not always those of the real one.
    """
    return torch.empty_like(like, dtype=torch.bool).bernoulli_(1 - p)


@torch.library.impl("fxremat::apply_mask", "cpu")
def apply_mask(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`x * mask * scale`, with no other buffer than the result."""
    return torch.empty_like(x).copy_(mask.view(torch.int8)).mul_(x).mul_(scale)


@torch.library.register_fake("fxremat::dropout_mask")
def _traced_mask(like: Tensor, _p: float) -> Tensor:
    return torch.empty_like(like, dtype=torch.bool)


@torch.library.register_fake("fxremat::apply_mask")
def _traced_result(x: Tensor, _mask: Tensor, _scale: float) -> Tensor:
    return torch.empty_like(x)


def split_dropout(joint: fx.GraphModule) -> None:
    """Write a traced graph's dropouts in these ops, in place, wherever the bits are right."""
    graph = joint.graph
    for node in graph.find_nodes(op="call_function", target=aten.native_dropout.default):
        p = argument_of(node, "p")
        if argument_of(node, "train") is not True or not isinstance(p, float) or not 0 < p < 1:
            continue
        scale = _scale(p, traced_value(node)[0])
        if not math.isfinite(scale) or not _is_plain(node):
            continue
        mask = _split(node, p, scale)
        for user in list(mask.users):
            if (
                user.target is aten.native_dropout_backward.default
                and argument_of(user, "scale") == 1 / (1 - p)
                and _is_plain(user)
            ):
                user.target = torch.ops.fxremat.apply_mask.default
                user.args = (user.args[0], mask, scale)


def _scale(p: float, like: Tensor) -> float:
    """What torch's dropout multiplies by: 1 over 1 - p, rounded to the tensor's type."""
    with torch_hooks.real_ops(like.device):
        return torch.ones((), dtype=like.dtype).div_(1 - p).item()


def _is_plain(node: fx.Node) -> bool:
    """On the CPU, of fixed sizes, not empty, and all tensors in one dense layout."""
    first, *others = (*input_tensors(node), *tensors_of(node))
    sizes: list[Any] = [n for t in (first, *others) for n in (*t.shape, *t.stride())]
    return (
        first.device.type == "cpu"
        and first.dtype.is_floating_point
        and all(isinstance(n, int) for n in sizes)
        and first.numel() > 0
        and torch.empty_like(first).stride() == first.stride()
        and all(t.shape == first.shape and t.stride() == first.stride() for t in others)
    )


def _split(node: fx.Node, p: float, scale: float) -> fx.Node:
    """Draw and apply in the place of a dropout; returns the node that draws the mask."""
    x = node.args[0]
    result, mask = traced_value(node)
    create = node.graph.create_node
    ours = torch.ops.fxremat
    with node.graph.inserting_before(node):
        drawn = create("call_function", ours.dropout_mask.default, (x, p), name=f"{node.name}_mask")
        applied = create(
            "call_function", ours.apply_mask.default, (x, drawn, scale), name=f"{node.name}_output"
        )
    # What tracing knew of the dropout, its source line too, it knows of both.
    drawn.meta = {**node.meta, "val": mask}
    applied.meta = {**node.meta, "val": result}
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(applied if user.args[1] == 0 else drawn)
        node.graph.erase_node(user)
    node.graph.erase_node(node)
    return drawn
