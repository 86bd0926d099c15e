"""What steps return beside the state: stacked, as `torch.stack` after the plain loop does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fxremat import torch_hooks
from fxremat.errors import LoopError


@dataclass(frozen=True)
class OutputKind:
    """One leaf of a step's output: whether it requires gradients, and which leaf of the new state
    it is itself, if any. The gradient of such a one comes first of all that the state gets."""

    live: bool
    leaf: int | None

    @property
    def own(self) -> bool:
        """Whether its gradient goes in by a way of its own."""
        return self.live and self.leaf is None


class Outputs:
    """The outputs of a loop of `steps` steps, None where their number isn't known."""

    def __init__(self, steps: int | None) -> None:
        self.kinds: tuple[OutputKind, ...] = ()
        self._steps = steps
        self._nesting: Any = None
        self._whole: list[torch.Tensor] = []
        self._single: list[list[torch.Tensor]] = []

    def leaves(self, number: int, output: object) -> list[torch.Tensor]:
        """The leaves of a step's output; their structure is the first step's."""
        leaves, nesting = torch_hooks.flatten_tree(output)
        if self._nesting is None:
            for leaf in leaves:
                if not isinstance(leaf, torch.Tensor):
                    raise LoopError(
                        f"step {number} gave a {type(leaf).__name__} as output: outputs are "
                        "stacked, so they are tensors (torch.tensor(value) makes one)"
                    )
            self._nesting = nesting
        if nesting != self._nesting:
            raise LoopError(
                f"step {number} gave an output of another structure, {nesting}, than step 0, "
                f"{self._nesting}: outputs are stacked, so they must be alike"
            )
        return leaves

    def kinds_of(
        self,
        number: int,
        leaves: Sequence[torch.Tensor],
        state: Sequence[Any],
        *,
        settle: bool,
    ) -> tuple[OutputKind, ...]:
        """What a step's outputs are. During the first run it is noted, later held against that."""
        places: dict[int, int] = {}
        for index, leaf in enumerate(state):
            if isinstance(leaf, torch.Tensor):
                places.setdefault(id(leaf), index)
        found = tuple(
            OutputKind(t.requires_grad, places.get(id(t)) if t.requires_grad else None)
            for t in leaves
        )
        if not self.kinds:
            self.kinds = found
        merged: list[OutputKind] = []
        for index, (now, before) in enumerate(zip(found, self.kinds, strict=True)):
            if now.live and before.live and now.leaf != before.leaf:
                raise LoopError(
                    f"output {index} is a tensor of the state after some steps and not after step "
                    f"{number}: return a clone of it as output"
                )
            if now.live and not before.live and not settle:
                raise LoopError(
                    f"output {index} requires gradients at step {number}, but did not at the first "
                    "steps, so that they would be lost"
                )
            merged.append(now if now.live else before)
        self.kinds = tuple(merged)
        return found

    def settle(self, kinds: tuple[OutputKind, ...], nesting: Any) -> None:
        """Say what the outputs of all steps are."""
        self.kinds, self._nesting = kinds, nesting

    def note(self, number: int, output: object) -> None:
        """Take a step's output in."""
        self.put(number, self.leaves(number, output))

    def put(self, number: int, leaves: Sequence[torch.Tensor]) -> None:
        """Take the leaves of a step's output in."""
        if self._steps is None:
            if not self._single:
                self._single = [[] for _ in leaves]
            for outputs, leaf in zip(self._single, leaves, strict=True):
                outputs.append(leaf.detach())
            return
        if not self._whole:
            self._whole = [leaf.new_empty((self._steps, *leaf.shape)) for leaf in leaves]
        for whole, leaf in zip(self._whole, leaves, strict=True):
            if whole.shape[1:] != leaf.shape or whole.dtype != leaf.dtype:
                raise LoopError(
                    f"step {number} gave an output of shape {list(leaf.shape)} and {leaf.dtype}, "
                    f"others {list(whole.shape[1:])} and {whole.dtype}: outputs are stacked, so "
                    "they must be alike"
                )
            whole[number].copy_(leaf.detach())

    def take(self) -> list[torch.Tensor]:
        """The stacked leaves; nothing is held afterwards."""
        whole, self._whole = self._whole, []
        single, self._single = self._single, []
        while single:
            whole.append(torch.stack(single.pop(0)))
        return whole

    def tree(self, leaves: Sequence[torch.Tensor]) -> Any:
        """The outputs in the nesting that the steps gave them."""
        return torch_hooks.unflatten_tree(leaves, self._nesting)
