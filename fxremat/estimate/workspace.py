"""What a GPU's kernels allocate beyond their results, where that is known from their source.

On a device that is there workspaces are measured (`profile_ops`). These few rules are for those
that are as large as tensors of the step. Not modelled are the workspaces of convolutions, which
cuDNN chooses by the device, and what libraries keep for the whole process, which a `DeviceSpec`
reserves.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from fxremat.nodes import argument_of, op_name, traced_value

_FLOAT = 4  # bytes


def workspace_bytes(node: fx.Node) -> int:
    """What one run of a node takes on a GPU beside its results."""
    rule = _RULES.get(op_name(node.target))
    return 0 if rule is None else rule(node)


def _tensor(node: fx.Node, name: str) -> torch.Tensor:
    found = argument_of(node, name)
    assert isinstance(found, fx.Node)
    return traced_value(found)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def _flash_backward(node: fx.Node) -> int:
    """Gradients of the queries and sums over rows in float32; of grouped keys those of all heads.

    aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp, `mha_bwd`.
    """
    query, key = _tensor(node, "query"), _tensor(node, "key")
    batch, heads, length, size = query.shape
    rows = batch * heads * _up(length, 128)
    nbytes = rows * _FLOAT * (1 + _up(size, 32))
    if key.size(1) != heads:
        nbytes += 2 * batch * heads * key.size(2) * size * key.itemsize
    return nbytes


def _efficient_backward(node: fx.Node) -> int:
    """Sums over rows; in half precision the gradients of the queries in float32, too.

    aten/src/ATen/native/transformers/cuda/mem_eff_attention/kernel_backward.h.
    """
    query = _tensor(node, "query")
    batch, heads, length, size = query.shape
    rows = batch * heads * _up(length, 32)
    return rows * _FLOAT * (1 + (_up(size, 32) if query.itemsize < _FLOAT else 0))


def _softmax_backward(node: fx.Node) -> int:
    """The product of gradient and result (aten/src/ATen/native/cuda/SoftMax.cu)."""
    return _tensor(node, "grad_output").untyped_storage().nbytes()


def _embedding_backward(node: fx.Node) -> int:
    """Indices, sorted and as they were, with the sort's own buffers."""
    return 4 * _tensor(node, "indices").numel() * 8


_RULES: dict[str, Callable[[fx.Node], int]] = {
    "_scaled_dot_product_flash_attention_backward": _flash_backward,
    "_scaled_dot_product_efficient_attention_backward": _efficient_backward,
    "_softmax_backward_data": _softmax_backward,
    "embedding_dense_backward": _embedding_backward,
}
