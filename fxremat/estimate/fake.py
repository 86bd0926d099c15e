"""Models and inputs without memory: fake tensors on the CPU, of the same shapes and types."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fxremat import torch_hooks
from fxremat.errors import UnsupportedGraphError

Cast = Callable[[torch.dtype], torch.dtype]
"""Which type a tensor is made in, given its own."""


def cast_to(dtype: torch.dtype | None) -> Cast:
    """Floating point types become `dtype`, where there is one."""

    def cast(own: torch.dtype) -> torch.dtype:
        return own if dtype is None or not own.is_floating_point else dtype

    return cast


def fake_module(module: nn.Module, mode: torch_hooks.FakeTensorMode, cast: Cast) -> nn.Module:
    """A copy of a module whose parameters and buffers are fake ones; tied ones stay tied.

    The module itself is not changed, and may be on any device, `meta` too.
    """
    known: dict[int, Any] = {}
    for buffer in module.buffers():
        known[id(buffer)] = fake_tensor(buffer, mode, cast)
    for parameter in module.parameters():
        fake = fake_tensor(parameter, mode, cast)
        known[id(parameter)] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
    try:
        return copy.deepcopy(module, known)
    except Exception as error:
        raise UnsupportedGraphError(
            f"the model can't be copied without its memory ({type(error).__name__}: {error}): "
            "give what copy.deepcopy can copy, or a factory that makes it"
        ) from error


def fake_inputs(
    inputs: Any, mode: torch_hooks.FakeTensorMode, cast: Cast, batch: int | None
) -> Any:
    """Inputs with fake tensors in their places; with `batch`, of another first dimension.

    What has another first dimension than the first tensor has no batch in it, and keeps its shape.
    """
    tensors = [t for t in torch_hooks.tree_leaves(inputs) if isinstance(t, Tensor)]
    own = next((t.size(0) for t in tensors if t.dim()), None)

    def fake(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        shape = [int(size) for size in value.shape]
        if batch is not None and shape and shape[0] == own:
            shape[0] = batch
        with mode:
            made = torch.empty(shape, dtype=cast(value.dtype), device="cpu")
            return made.requires_grad_(value.requires_grad)

    return torch_hooks.tree_map(fake, inputs)


def batch_of(inputs: Any) -> int | None:
    """The first dimension of the first tensor among the inputs."""
    tensors = [t for t in torch_hooks.tree_leaves(inputs) if isinstance(t, Tensor)]
    return next((t.size(0) for t in tensors if t.dim()), None)


def fake_tensor(tensor: Tensor, mode: torch_hooks.FakeTensorMode, cast: Cast) -> Tensor:
    """A fake tensor on the CPU of the same shape and strides."""
    with mode, torch.no_grad():
        return torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=cast(tensor.dtype), device="cpu"
        )
