"""A state as one run of bytes: where each tensor of it lies, and how it is read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fxremat.loops.store import Kept

_ALIGNMENT = 4096  # as a page: kernels may choose by alignment


@dataclass(frozen=True)
class _Part:
    """One tensor: its place, and what it is."""

    begin: int
    nbytes: int
    dtype: torch.dtype
    shape: torch.Size
    strides: tuple[int, ...]
    device: torch.device


@dataclass(frozen=True)
class Packing:
    """How a state lies in `nbytes` bytes. `leaves` are indices of parts, or values themselves."""

    nbytes: int
    parts: tuple[_Part, ...]
    leaves: tuple[tuple[int | None, Any], ...]
    random: int

    @staticmethod
    def of(kept: Kept) -> tuple[Packing, list[torch.Tensor]]:
        """The packing of a state and its tensors, each once, random states last."""
        tensors: list[torch.Tensor] = []
        places: dict[int, int] = {}
        leaves: list[tuple[int | None, Any]] = []
        for leaf in kept.leaves:
            if not isinstance(leaf, torch.Tensor):
                leaves.append((None, leaf))
                continue
            if id(leaf) not in places:
                places[id(leaf)] = len(tensors)
                tensors.append(leaf)
            leaves.append((places[id(leaf)], None))
        tensors += kept.random
        parts: list[_Part] = []
        begin = 0
        for tensor in tensors:
            nbytes = tensor.numel() * tensor.element_size()
            parts.append(
                _Part(begin, nbytes, tensor.dtype, tensor.shape, _dense(tensor), tensor.device)
            )
            begin += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        packing = Packing(max(begin, 1), tuple(parts), tuple(leaves), len(kept.random))
        return packing, tensors

    def write(self, whole: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
        """Copy tensors into the bytes; from a device without waiting where `whole` is pinned."""
        for part, tensor in zip(self.parts, tensors, strict=True):
            if part.nbytes:
                _view(whole, part).copy_(tensor, non_blocking=True)

    def read(self, whole: torch.Tensor) -> Kept:
        """The state. Tensors of the CPU are views of the bytes, others copies on their device."""
        found = [
            _view(whole, part).to(part.device, non_blocking=True)
            if part.nbytes
            else torch.empty_strided(part.shape, part.strides, dtype=part.dtype, device=part.device)
            for part in self.parts
        ]
        leaves = tuple(value if at is None else found[at] for at, value in self.leaves)
        # torch reads a generator's state from the beginning of its storage, whatever the view.
        random = tuple(t.clone() for t in found[len(found) - self.random :])
        return Kept(leaves, random)


def _view(whole: torch.Tensor, part: _Part) -> torch.Tensor:
    data = whole[part.begin : part.begin + part.nbytes].view(part.dtype)
    return data.as_strided(part.shape, part.strides)


def _dense(tensor: torch.Tensor) -> tuple[int, ...]:
    """The tensor's strides where it lies in one dense piece, else those of a copy of it."""
    return torch.empty_like(tensor, device="meta").stride()
