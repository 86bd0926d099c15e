"""Where kept states lie: in memory, as references. Nothing is copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fxremat import torch_hooks
from fxremat.errors import LoopError


@dataclass(frozen=True)
class Kept:
    """A state that is kept: its leaves and the generators' states where it was made."""

    leaves: tuple[Any, ...]
    random: tuple[torch.Tensor, ...]


class Store(Protocol):
    """A place for states, each under its number."""

    def put(self, number: int, kept: Kept) -> None: ...
    def get(self, number: int) -> Kept: ...
    def drop(self, number: int) -> None: ...
    def close(self) -> None: ...


class Memory:
    """References to the states' own tensors, with the versions that they had."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Kept, tuple[int, ...]]] = {}

    def put(self, number: int, kept: Kept) -> None:
        self._kept[number] = (kept, torch_hooks.versions(kept.leaves))

    def get(self, number: int) -> Kept:
        kept, before = self._kept[number]
        if torch_hooks.versions(kept.leaves) != before:
            raise LoopError(
                f"state {number}, which the loop keeps for its backward, was changed in place: "
                "the step must return new tensors (or clone what it changes), and the first state "
                "must stay as it is until backward"
            )
        return kept

    def drop(self, number: int) -> None:
        del self._kept[number]

    def close(self) -> None:
        self._kept.clear()
