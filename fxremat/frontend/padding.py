"""Pad batches to few lengths: each length is a graph, a plan and seconds of compilation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from fxremat.errors import OptionError


def pad_to_multiple(
    batch: Mapping[str, Any],
    multiple: int,
    *,
    values: Mapping[str, float | None],
    dim: int = 1,
) -> dict[str, Any]:
    """A batch whose tensors have a length that is a multiple of `multiple`, padded at the end.

    `values` names the tensors to pad along `dim`, and what with: for a causal language model
    ``{"input_ids": pad_token_id, "attention_mask": 0, "labels": -100}``. None leaves a tensor as it
    is. That the padding changes no loss is the model's business: it has to mask what it is told to.
    It does so up to rounding, and draws other dropout masks. What has no value stays the same
    object; what has one is a new tensor, for one tensor under two names would be one more graph.

    Raises `OptionError` for a multiple below 1, a name that is not in the batch or no tensor with
    that dimension, a value that a tensor can't hold, tensors of several lengths, and a tensor of
    that length without a value.
    """
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"multiple is {multiple!r}: it must be an integer of 1 or more")
    if isinstance(dim, bool) or not isinstance(dim, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"dim is {dim!r}: it must be an integer")
    named = {name: value for name, value in values.items() if value is not None}
    lengths = {name: _length(batch, name, dim) for name in named}
    for name, value in named.items():
        _check_value(name, batch[name].dtype, value)
    if len(set(lengths.values())) != 1:
        raise OptionError(f"the tensors to pad have several lengths, or there are none: {lengths}")
    length = next(iter(lengths.values()))
    for name, tensor in batch.items():
        if name not in values and _has_dimension(tensor, dim) and tensor.shape[dim] == length:
            raise OptionError(
                f"{name!r} has the length that is padded, {length}, but no value: give one, or "
                "None to leave it as it is"
            )
    missing = -length % multiple
    return {
        name: _padded(tensor, dim, missing, named[name]) if name in named else tensor
        for name, tensor in batch.items()
    }


def _length(batch: Mapping[str, Any], name: str, dim: int) -> int:
    if name not in batch:
        raise OptionError(f"{name!r} is not in the batch, which has {', '.join(map(repr, batch))}")
    if not _has_dimension(batch[name], dim):
        shape = tuple(getattr(batch[name], "shape", ()))
        raise OptionError(
            f"{name!r} is a {type(batch[name]).__name__} of shape {shape}, with no dimension {dim}"
        )
    return batch[name].shape[dim]


def _check_value(name: str, dtype: torch.dtype, value: object) -> None:
    """Refuse what a tensor of this type would hold as another number, or not at all."""
    number: Any = value
    try:
        held = torch.tensor(number, dtype=dtype).item()
    except (TypeError, ValueError, RuntimeError):
        held = None
    rounded = dtype.is_floating_point and held is not None
    if not rounded and (held is None or held != number):
        raise OptionError(f"{name!r} is of {dtype}, which can't hold the value {value!r}")


def _has_dimension(value: Any, dim: int) -> bool:
    return isinstance(value, torch.Tensor) and -value.dim() <= dim < value.dim()


def _padded(tensor: torch.Tensor, dim: int, count: int, value: float) -> torch.Tensor:
    after = tensor.dim() - 1 - dim % tensor.dim()
    # F.pad counts dimensions from the last.
    return F.pad(tensor, [0, 0] * after + [0, count], value=value)
