"""A loop in a function that Dynamo traces: one operation of its graph, whatever its length.

Dynamo traces the step once, as a graph of its own whose operands are all tensors that it reads. The
marks below say there what the state is, which Dynamo doesn't tell, and stand for the step's number
and for its part of xs. Results are clones, which the program of the step then leaves out, as Dynamo
takes no graphs whose results share memory.
"""

# torch.library's annotations are loose.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

from typing import Any

import torch

from fxremat import torch_hooks
from fxremat.loops.operator import run_loop

# As if they drew: of a tensor whose value a trace knows the mark's value is not known.
_UNKNOWN = (torch.Tag.nondeterministic_seeded,)
torch.library.define("fxremat::loop_number", "(Tensor like) -> SymInt", tags=_UNKNOWN)
torch.library.define("fxremat::loop_leaf", "(Tensor leaf, int place) -> Tensor", tags=_UNKNOWN)
torch.library.define("fxremat::loop_part", "(Tensor xs, int place) -> Tensor", tags=_UNKNOWN)


@torch.library.register_fake("fxremat::loop_number")
def _number(like: torch.Tensor) -> Any:  # noqa: ARG001
    return torch_hooks.new_number()


@torch.library.register_fake("fxremat::loop_leaf")
def _leaf(leaf: torch.Tensor, place: int) -> torch.Tensor:  # noqa: ARG001
    return torch.empty_like(leaf)


@torch.library.register_fake("fxremat::loop_part")
def _part(xs: torch.Tensor, place: int) -> torch.Tensor:  # noqa: ARG001
    return xs.new_empty_strided(xs.shape[1:], xs.stride()[1:])


_operator = torch_hooks.GraphOperator("fxremat_loop", run_loop)


def is_one_operation(
    state: Any,
    while_: Any,
    budget: Any,
    slots: Any,
    schedule: Any,
    store: Any,
    compile: bool,
    params: Any,
    progress: bool,
) -> bool:
    """Whether a loop with these options is traced as one operation. Asked while Dynamo traces."""
    return (
        while_ is None
        and budget is None
        and isinstance(slots, int)
        and isinstance(schedule, str)
        and isinstance(store, str)
        and store == "ram"
        and not (compile or progress)
        and params is None
        and not torch_hooks.autocast_is_on()
        and all(isinstance(leaf, torch.Tensor) for leaf in torch_hooks.tree_leaves(state))
    )


def traced_loop(
    step: Any, state: Any, steps: int | None, xs: Any, has_outputs: bool, slots: int | None
) -> Any:
    """What `fxremat.loop` returns, by an operation of the graph that is traced now."""
    leaves, nesting = torch_hooks.flatten_tree(state)
    xs_leaves, xs_nesting = torch_hooks.flatten_tree(xs) if xs is not None else ([], None)
    count = len(leaves)
    length = xs_leaves[0].shape[0] if steps is None else steps

    def body(*given: torch.Tensor) -> Any:
        own = [torch.ops.fxremat.loop_leaf.default(given[k], k) for k in range(count)]
        if xs is None:
            read = torch.ops.fxremat.loop_number.default(given[0])
        else:
            parts = [
                torch.ops.fxremat.loop_part.default(given[count + k], k)
                for k in range(len(xs_leaves))
            ]
            read = torch_hooks.unflatten_tree(parts, xs_nesting)
        made = step(torch_hooks.unflatten_tree(own, nesting), read)
        output: Any = ()
        if has_outputs:
            made, output = made
        new, new_nesting = torch_hooks.flatten_tree(made)
        outputs, output_nesting = torch_hooks.flatten_tree(output)
        if new_nesting != nesting or not all(isinstance(t, torch.Tensor) for t in (*new, *outputs)):
            torch_hooks.break_graph("the step of the fxremat.loop returns no state as it was given")
        for before, after in zip(own, new, strict=False):
            if before.shape != after.shape or before.dtype != after.dtype:
                torch_hooks.break_graph("the step of the fxremat.loop changes the state's shape")
        stacked = [torch.stack([t]).expand(length, *t.shape).clone() for t in outputs]
        return (
            [t.clone() for t in new],
            [t.clone() for t in outputs],
            torch_hooks.unflatten_tree(stacked, output_nesting),
        )

    new, _, outputs = _operator(body, *leaves, *xs_leaves, steps=length, slots=slots, leaves=count)
    result = torch_hooks.unflatten_tree(new, nesting)
    return (result, outputs) if has_outputs else result
