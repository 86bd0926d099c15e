"""One step with its graph, and its reversal in the plain loop's order of additions.

The engine runs the nodes of a graph in the reverse order of their making, so in the plain loop a
parameter's gradient is one long sum over its single uses, the last use first. To add each step's
gradient to the total would be another sum, with other last bits. Here every step gets one more
node, made last, that the engine runs first: it returns the totals so far, so that they are the
first summand everywhere, and the engine itself goes on adding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxremat import torch_hooks

Gradient = torch.Tensor | None


class _Totals(torch.autograd.Function):
    """The root of a step's reversal: hands out what its holder holds, and keeps none of it."""

    @staticmethod
    def forward(
        ctx: Any, holder: list[tuple[Gradient, ...]], *tensors: torch.Tensor
    ) -> torch.Tensor:
        ctx.holder = holder
        ctx.set_materialize_grads(False)
        return torch.empty(0, device=tensors[0].device)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return (None, *ctx.holder.pop())


# As often as steps are taped: without what looks for torch.func's transforms, which are refused.
_apply_totals: Callable[..., torch.Tensor] = torch_hooks.apply_of(_Totals)


class Tape:
    """What the reversal of one step needs.

    Gradients go in in the order (results, states, captured) and come out as (states, inputs,
    captured), where `states`, `inputs` and `captured` are those leaves that the step was given.
    """

    __slots__ = ("_holder", "_leaves", "_root")

    def __init__(
        self,
        results: Sequence[torch.Tensor],
        states: Sequence[torch.Tensor],
        inputs: Sequence[torch.Tensor],
        captured: Sequence[torch.Tensor],
    ) -> None:
        self._leaves = (*states, *inputs, *captured)
        self._holder: list[tuple[Gradient, ...]] = []
        roots = (*results, *states, *captured)
        self._root: torch.Tensor | None = None
        if roots:
            self._root = _apply_totals(self._holder, *roots)

    def pull(self, gradients: list[Gradient], seed: torch.Tensor) -> list[Gradient]:
        """The gradients of the leaves. Empties the list and the tape, so that both are freed early.

        `seed` is an empty tensor on the loop's device.
        """
        root, leaves = self._root, self._leaves
        self._root, self._leaves = None, ()
        if root is None or not leaves:
            gradients.clear()
            return [None] * len(leaves)
        self._holder.append(tuple(gradients))
        gradients.clear()
        return list(torch_hooks.gradients(root, seed, leaves))
