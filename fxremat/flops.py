"""Floating point operations and bytes moved, per node, from shapes alone.

Matrix products, convolutions and attention from torch's own registry; for everything else the
elements touched, times a weight for functions that take many instructions an element.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks

# Instructions an element, relative to one multiply-add, of the vectorised CPU kernels.
_WEIGHTS = {
    "gelu": 40,
    "gelu_backward": 60,
    "tanh": 30,
    "erf": 30,
    "exp": 15,
    "log": 20,
    "sin": 25,
    "cos": 25,
    "pow": 40,
    "sigmoid": 20,
    "silu": 20,
    "silu_backward": 25,
    "softplus": 40,
    "mish": 60,
    "_softmax": 20,
    "_log_softmax": 20,
    "_softmax_backward_data": 6,
    "_log_softmax_backward_data": 20,
    "native_layer_norm": 8,
    "native_layer_norm_backward": 14,
    "native_group_norm": 8,
    "native_group_norm_backward": 14,
    "_native_batch_norm_legit_functional": 8,
    "native_batch_norm_backward": 14,
    # Sequential generators (Mersenne Twister, Philox): dozens of instructions a draw.
    "native_dropout": 60,
    "bernoulli": 60,
    "rand": 60,
    "rand_like": 60,
    "randn": 90,
    "randn_like": 90,
    "div": 4,
    "sqrt": 4,
    "rsqrt": 4,
}


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors of a node's value."""
    items = value if isinstance(value, (tuple, list)) else [value]
    return [item for item in items if isinstance(item, torch.Tensor)]


def node_flops(node: fx.Node) -> int:
    """FLOPs of one run of an operation; multiply and add count as two in products."""
    formula = torch_hooks.flop_formula(node.target)
    outputs = tensors_in(node.meta.get("val"))
    if formula is not None:
        args = fx.node.map_arg(node.args, lambda n: n.meta["val"])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: n.meta["val"])
        try:
            return int(formula(*args, **kwargs, out_val=node.meta["val"]))
        except (TypeError, ValueError, AssertionError, IndexError, KeyError):
            pass  # A formula that does not know this overload: count elements instead.
    name = str(getattr(node.target, "_schema", None) and node.target._schema.name).split("::")[-1]
    touched = max(
        (t.numel() for t in (*outputs, *_inputs(node))),
        default=0,
    )
    return touched * _WEIGHTS.get(name, 1)


def is_product(node: fx.Node) -> bool:
    """Whether a node runs on the matrix units: it has a FLOP formula of torch's."""
    return torch_hooks.flop_formula(node.target) is not None


def node_bytes_moved(node: fx.Node) -> int:
    """Bytes that one run reads and writes at the least: each input and output once."""
    return sum(math.prod(t.shape) * t.element_size() for t in (
        *tensors_in(node.meta.get("val")), *_inputs(node)
    ))


def _inputs(node: fx.Node) -> list[torch.Tensor]:
    return [t for arg in node.all_input_nodes for t in tensors_in(arg.meta.get("val"))]
