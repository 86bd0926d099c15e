"""Attention as a GPU runs it, in a graph that is traced on the CPU.

`scaled_dot_product_attention` picks a kernel by the device of its arguments. On the CPU that is a
kernel of its own, or plain products where dropout is drawn; on a GPU a fused one, which keeps other
tensors for backward. So the call is replaced before its decomposition, by the op that torch would
pick there (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp): flash attention in half
precision without a mask, memory-efficient attention otherwise, plain products for what neither
takes. Traced shapes of these ops are torch's own.
"""

# torch's annotations of ops and nodes are loose.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

aten = torch.ops.aten

_HALF = (torch.float16, torch.bfloat16)
_LARGEST_FLASH_HEAD = 256


def map_attention(module: fx.GraphModule) -> int:
    """Put a GPU's attention in the place of each call in Dynamo's graph; how many there were."""
    called = functional.scaled_dot_product_attention
    calls = list(module.graph.find_nodes(op="call_function", target=called))
    for node in calls:
        node.target = attention
    if calls:
        module.recompile()
    return len(calls)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` by the op that torch picks on a GPU."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = (each.to(dtype) for each in (query, key, value))
    kernel = kernel_of(query, key, value, attn_mask, enable_gqa)
    if kernel == "flash":
        return _flash(query, key, value, dropout_p, is_causal, scale)
    if kernel == "efficient":
        return _efficient(query, key, value, attn_mask, dropout_p, is_causal, scale)
    made: Any = aten._scaled_dot_product_attention_math(
        query,
        key,
        value,
        attn_mask,
        dropout_p,
        is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
    )
    return made[0]


def kernel_of(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, enable_gqa: bool
) -> str:
    """Which of torch's kernels takes such arguments on a GPU."""
    if query.dim() != 4:
        return "math"
    same_size = query.size(-1) == key.size(-1) == value.size(-1)
    if (
        mask is None
        and query.dtype in _HALF
        and same_size
        and query.size(-1) <= _LARGEST_FLASH_HEAD
    ):
        return "flash"
    aligned = 8 if query.dtype in _HALF else 4
    heads_differ = enable_gqa and query.size(1) != key.size(1)
    odd = any(each.size(-1) % aligned for each in (query, value))
    if heads_differ or odd or (mask is not None and mask.requires_grad):
        return "math"
    return "efficient" if query.dtype in (*_HALF, torch.float32) else "math"


def _flash(
    query: Tensor, key: Tensor, value: Tensor, p: float, is_causal: bool, scale: float | None
) -> Tensor:
    size = query.size(-1)
    scale = size**-0.5 if scale is None else scale
    short = -size % 8
    if short:  # The kernel takes heads of a multiple of eight.
        query, key, value = (functional.pad(each, (0, short)) for each in (query, key, value))
    made: Any = aten._scaled_dot_product_flash_attention(
        query, key, value, p, is_causal, scale=scale
    )
    return made[0][..., :size] if short else made[0]


def _efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    p: float,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    if mask is not None:
        if mask.dtype is torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
        short = -mask.size(-1) % 16
        if short:  # Rows of the mask begin at aligned addresses.
            mask = functional.pad(mask, (0, short))[..., : key.size(-2)]
        mask = mask.expand(query.size(0), query.size(1), query.size(2), key.size(2))
    made: Any = aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, query.requires_grad, p, is_causal, scale=scale
    )
    return made[0]
