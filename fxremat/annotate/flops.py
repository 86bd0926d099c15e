"""Floating point operations and bytes moved, per node, from shapes alone.

Matrix products, convolutions and attention from torch's own registry; for everything else the
elements touched, times a weight for functions that take many instructions an element.
"""

from __future__ import annotations

from torch import fx

from fxremat import torch_hooks
from fxremat.nodes import input_tensors, map_nodes, op_name, tensors_of, traced_value

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
    "dropout_mask": 60,
    "bernoulli": 60,
    "rand": 60,
    "rand_like": 60,
    "randn": 90,
    "randn_like": 90,
    "div": 4,
    "sqrt": 4,
    "rsqrt": 4,
}


def node_flops(node: fx.Node) -> int:
    """FLOPs of one run of an operation; multiply and add count as two in products."""
    formula = torch_hooks.flop_formula(node.target)
    if formula is not None:
        args, kwargs = map_nodes((node.args, node.kwargs), traced_value)
        try:
            return int(formula(*args, **kwargs, out_val=traced_value(node)))
        except (TypeError, ValueError, AssertionError, IndexError, KeyError):
            pass  # A formula that does not know this overload: count elements instead.
    touched = max((t.numel() for t in (*tensors_of(node), *input_tensors(node))), default=0)
    return touched * _WEIGHTS.get(op_name(node.target), 1)


def is_product(node: fx.Node) -> bool:
    """Whether a node runs on the matrix units: it has a FLOP formula of torch's."""
    return torch_hooks.flop_formula(node.target) is not None


def node_bytes_moved(node: fx.Node) -> int:
    """Bytes that one run reads and writes at the least: each input and output once."""
    return sum(t.numel() * t.element_size() for t in (*tensors_of(node), *input_tensors(node)))
