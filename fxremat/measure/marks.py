"""Marks in a stream of allocation events: two small tensors, made and freed one after the other.

Nothing else allocates just these. Events carry no names, and marks by name would stay open where
the recording of events is interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxremat.memory_model import allocated_bytes

# Two allocations of odd sizes in a row.
_MARK = (1_000_003, 1_000_033)


def mark(device: torch.device) -> None:
    """Leave a mark in the events of a device."""
    for nbytes in _MARK:
        torch.empty(nbytes, dtype=torch.uint8, device=device)


def split_at_marks(events: Sequence[int]) -> list[list[int]]:
    """The events before the first mark, between the first and the second, ..., after the last."""
    parts: list[list[int]] = [[]]
    position = 0
    while position < len(events):
        if _is_mark(events[position : position + 4]):
            parts.append([])
            position += 4
        else:
            parts[-1].append(events[position])
            position += 1
    return parts


def _is_mark(events: Sequence[int]) -> bool:
    if len(events) < 4:
        return False
    first, first_freed, second, second_freed = events
    on_cuda = torch.device("cuda")
    sizes = _MARK if first in _MARK else tuple(allocated_bytes(n, on_cuda) for n in _MARK)
    return (first, second) == sizes and (first_freed, second_freed) == (-first, -second)
