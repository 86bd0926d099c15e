"""The loop without gradients: nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fxremat import torch_hooks
from fxremat.loops.condition import Condition
from fxremat.loops.outputs import Outputs
from fxremat.loops.recurrence import Leaf, Recurrence


def run_plainly(
    recurrence: Recurrence, leaves: Sequence[Leaf], steps: int | None, condition: Condition | None
) -> tuple[Any, int]:
    """The result of a loop, of `steps` or while a condition holds, and the number of its steps."""
    outputs = Outputs(steps) if recurrence.has_outputs else None
    nesting = recurrence.nesting
    current, number = list(leaves), 0

    def going() -> bool:
        if condition is None:
            return number != steps
        return condition.holds(torch_hooks.unflatten_tree(current, nesting), number)

    while going():
        current, output = recurrence.run(number, current, recurrence.inputs(number))
        if outputs is not None:
            outputs.note(number, output)
        number += 1
    state = torch_hooks.unflatten_tree(current, nesting)
    return (state if outputs is None else (state, outputs.tree(outputs.take()))), number
