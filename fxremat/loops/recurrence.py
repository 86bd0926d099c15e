"""The user's step over flat lists of leaves, held to one structure of the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch

from fxremat import torch_hooks
from fxremat.errors import LoopError

Leaf = Any  # a tensor, a number, a string or None

_PLAIN = (bool, int, float, complex, str, type(None))


@dataclass(frozen=True)
class Recurrence:
    """One step of a loop: `state` flat, and what each step reads beside it.

    `nesting` nests the leaves of the state. `xs` are the leaves of what is iterated over, stacked,
    in the nesting `xs_nesting`; without them a step is given its number. With `has_outputs` a step
    returns a pair.
    """

    step: Callable[[Any, Any], Any]
    nesting: Any
    xs: tuple[torch.Tensor, ...]
    xs_nesting: Any
    has_outputs: bool

    @staticmethod
    def of(
        step: Callable[[Any, Any], Any], state: object, xs: object, has_outputs: bool
    ) -> tuple[Recurrence, list[Leaf]]:
        """The recurrence and the leaves of its first state."""
        leaves, nesting = torch_hooks.flatten_tree(state)
        for leaf in leaves:
            if not isinstance(leaf, (torch.Tensor, *_PLAIN)):
                raise LoopError(
                    f"the state holds a {type(leaf).__name__}: it may hold tensors and plain "
                    "numbers in tuples, lists and dicts; give anything else to the step by closure"
                )
        xs_leaves, xs_nesting = torch_hooks.flatten_tree(xs) if xs is not None else ([], None)
        return Recurrence(step, nesting, tuple(xs_leaves), xs_nesting, has_outputs), leaves

    @cached_property
    def is_single(self) -> bool:
        """Whether the state is one leaf by itself, as it mostly is."""
        return torch_hooks.is_leaf(self.nesting)

    def inputs(self, number: int) -> list[torch.Tensor]:
        """The leaves of what a step reads beside the state, as views."""
        return [each[number] for each in self.xs]

    def run(
        self, number: int, leaves: Sequence[Leaf], inputs: Sequence[torch.Tensor]
    ) -> tuple[list[Leaf], Any]:
        """The next state's leaves, and the step's output (None where it has none)."""
        single = self.is_single
        state = leaves[0] if single else torch_hooks.unflatten_tree(leaves, self.nesting)
        read = torch_hooks.unflatten_tree(inputs, self.xs_nesting) if self.xs else number
        made: Any = self.step(state, read)
        output = None
        if self.has_outputs:
            if not isinstance(made, tuple) or len(cast("tuple[Any, ...]", made)) != 2:
                raise LoopError(
                    f"step {number} returned no pair: with outputs=True a step "
                    "returns (state, output)"
                )
            made, output = cast("tuple[Any, Any]", made)
        if single and isinstance(made, torch.Tensor):
            _check_leaf(number, leaves[0], made)
            return [made], output
        new, nesting = torch_hooks.flatten_tree(made)
        if nesting is not self.nesting and nesting != self.nesting:
            raise LoopError(
                f"step {number} returned a state of another structure, {nesting}, than it was "
                f"given, {self.nesting}: return the state as it came, with other values"
            )
        for before, after in zip(leaves, new, strict=True):
            _check_leaf(number, before, after)
        return new, output


def _check_leaf(number: int, before: Leaf, after: Leaf) -> None:
    if not isinstance(after, torch.Tensor) or not isinstance(before, torch.Tensor):
        if isinstance(after, torch.Tensor) or isinstance(before, torch.Tensor):
            raise LoopError(
                f"step {number} turned a {type(before).__name__} of the state into a "
                f"{type(after).__name__}: a leaf stays a tensor, or stays none"
            )
        return
    if before is after:
        return
    if before.shape != after.shape or before.dtype != after.dtype or before.device != after.device:
        raise LoopError(
            f"step {number} turned a tensor of the state, {_described(before)}, into "
            f"{_described(after)}: shapes, types and devices stay the same from step to step "
            "(cast or move the first state where it differs from what the step makes)"
        )


def _described(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)} on {tensor.device}"
