"""Autocast as a GPU does it, in a graph that is traced on the CPU.

Products are cast down on both. What is kept in float32 differs: on a GPU that is also norms,
softmax, sums, powers and more. Calls of those in Dynamo's graph cast their arguments up, where
autocast is on when the graph is traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx

from fxremat import torch_hooks

# docs.pytorch.org/docs/stable/amp.html, "CUDA Ops that can autocast to float32".
_FLOAT32 = frozenset(
    {
        "acos",
        "asin",
        "binary_cross_entropy_with_logits",
        "cdist",
        "cosh",
        "cosine_embedding_loss",
        "cosine_similarity",
        "cross_entropy",
        "cumprod",
        "cumsum",
        "dist",
        "erfinv",
        "exp",
        "expm1",
        "group_norm",
        "hinge_embedding_loss",
        "kl_div",
        "l1_loss",
        "layer_norm",
        "log",
        "log10",
        "log1p",
        "log2",
        "log_softmax",
        "margin_ranking_loss",
        "mse_loss",
        "nll_loss",
        "norm",
        "normalize",
        "pow",
        "prod",
        "reciprocal",
        "rms_norm",
        "rsqrt",
        "sinh",
        "smooth_l1_loss",
        "soft_margin_loss",
        "softmax",
        "softplus",
        "sum",
        "tan",
        "triplet_margin_loss",
    }
)
_HALF = (torch.float16, torch.bfloat16)


def map_autocast(module: fx.GraphModule) -> int:
    """Let Dynamo's graph cast as a GPU's autocast does; how many calls that is asked of."""
    calls = [node for node in module.graph.nodes if _name(node) in _FLOAT32]
    for node in calls:
        if node.op == "call_method":
            node.op = "call_function"
            node.target = _in_float32(_method(str(node.target)))
        else:
            node.target = _in_float32(cast("Callable[..., Any]", node.target))
    if calls:
        module.recompile()
    return len(calls)


def _name(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _method(name: str) -> Callable[..., Any]:
    def method(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(tensor, name)(*args, **kwargs)

    return method


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    def float32_under_autocast(*args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            args, kwargs = torch_hooks.tree_map(_up, (args, kwargs))
        return function(*args, **kwargs)

    return float32_under_autocast


def _up(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value
