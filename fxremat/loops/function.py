"""A loop that has run, as one node of autograd's graph."""

from __future__ import annotations

from typing import Any, cast

import torch

from fxremat import torch_hooks
from fxremat.errors import LoopError
from fxremat.loops.run import Run


def differentiable(run: Run) -> Any:
    """The result of a loop that was run, whose gradients are the run's."""
    tensors, wanted, made_of = run.results()
    if not any(wanted):
        run.close()
        return made_of(tensors)
    held = [tensors]
    del tensors
    found = cast("Any", _Loop).apply(run, held, wanted, *run.inputs())
    return made_of(found)


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        run: Run,
        held: list[list[torch.Tensor]],
        wanted: list[bool],
        *_inputs: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        ctx.run = run
        ctx.set_materialize_grads(False)
        tensors = held.pop()
        ctx.mark_non_differentiable(
            *(t for t, want in zip(tensors, wanted, strict=True) if not want)
        )
        return tuple(tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return (None, None, None, *ctx.run.reverse(gradients))


def refuse_transforms() -> None:
    """Raise under torch.func's transforms, which a loop's graph knows nothing of."""
    if torch_hooks.in_function_transform():
        raise LoopError(
            "fxremat.loop under torch.func (vmap, grad, jvp): batch inside the step (give it a "
            "state with a batch dimension), and take gradients with torch.autograd"
        )
