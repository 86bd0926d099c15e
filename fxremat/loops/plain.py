"""The loop without gradients: nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fxremat import torch_hooks
from fxremat.loops.outputs import Outputs
from fxremat.loops.recurrence import Leaf, Recurrence


def run_plainly(
    recurrence: Recurrence,
    leaves: Sequence[Leaf],
    steps: int | None,
    going: Callable[[Sequence[Leaf], int], bool],
) -> tuple[Any, int]:
    """The result of a loop and the number of its steps."""
    outputs = Outputs(steps) if recurrence.has_outputs else None
    current, number = list(leaves), 0
    while going(current, number):
        current, output = recurrence.run(number, current, recurrence.inputs(number))
        if outputs is not None:
            outputs.note(number, output)
        number += 1
    state = torch_hooks.unflatten_tree(current, recurrence.nesting)
    return (state if outputs is None else (state, outputs.tree(outputs.take()))), number
