"""What the loops of a traced graph keep: chosen by planning the graph with several choices.

`fxremat.loop` in a traced function is a pair of operators; what its forward keeps for its backward
are outputs of the one and inputs of the other, so that another choice is another graph. Some are
planned by a quick solver, and the cheapest one in earnest. Steps have their tapes within backward,
as many at a time as `length` says.
"""

from __future__ import annotations

import bisect
import copy
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.classify import LOOPS
from fxremat.errors import BudgetInfeasible
from fxremat.nodes import is_op, op_name, traced_value
from fxremat.pipeline.states import Traced
from fxremat.plan.plan import Plan
from fxremat_solvers.loops.segments import segments_evaluations

# A loop takes no choice with more evaluations than so many a step, unless it was given it.
_MOST_EVALUATIONS = 8
# Few, as each one that is tried runs the loop some times.
_SLOTS = (20, 8, 3, 1)

TryPlan = Callable[[Traced], Plan]
"""Plans a graph quickly. Raises `BudgetInfeasible`."""


@dataclass(frozen=True)
class Loop:
    """A loop's two nodes, and what it was given."""

    forward: fx.Node
    backward: fx.Node
    steps: int
    slots: int
    length: int

    def __str__(self) -> str:
        taped = f", and {self.length} steps' tapes at a time in it" if self.length > 1 else ""
        return (
            f"A loop of {self.steps} steps keeps {self.slots} states for its backward{taped}: "
            f"{self.evaluations((self.slots, self.length))} evaluations of its step."
        )

    def choices(self) -> list[tuple[int, int]]:
        """Slots and lengths, by the evaluations that they take."""
        n, root = self.steps, max(1, math.isqrt(self.steps))
        found = {(self.slots, self.length)}
        for length in (max(1, root // 2), 1):
            found.add((-(-n // length), length))
        found |= {(slots, 1) for slots in (root, *_SLOTS) if slots < n}
        most = max(_MOST_EVALUATIONS * n, self.evaluations((self.slots, self.length)))
        fit = [each for each in found if self.evaluations(each) <= most]
        # Of two with as many evaluations the one that keeps fewer states is first.
        return sorted(fit, key=lambda each: (self.evaluations(each), each))

    def evaluations(self, choice: tuple[int, int]) -> int:
        """What a choice takes; the last steps of the first run run once more with their tapes."""
        slots, length = choice
        last = self.steps - (-(-self.steps // length) - 1) * length
        return segments_evaluations(self.steps, slots, length) + last


def loops_of(module: fx.GraphModule) -> list[Loop]:
    """The loops of a joint graph that are differentiated."""
    calls = [n for n in module.graph.nodes if is_op(n.target) and op_name(n.target) in LOOPS]
    backwards = [node for node in calls if op_name(node.target) == "loop_backward"]
    found: list[Loop] = []
    for forward in calls:
        if forward in backwards:
            continue
        operands, program, steps, slots, length, _ = _arguments(forward)
        for backward in backwards:
            others, _, _, other, *how = _arguments(backward)
            same = (others, other, how[:3]) == (operands, program, [steps, slots, length])
            if same and backward not in (loop.backward for loop in found):
                found.append(Loop(forward, backward, steps, slots, length))
                break
    return found


def with_choice(traced: Traced, number: int) -> Traced:
    """A copy of a graph in which each loop has its choice of that number, or its last one."""
    module = _copy(traced.module)
    loops = loops_of(module)
    for loop in loops:
        choices = loop.choices()
        _choose(loop, *choices[min(number, len(choices) - 1)])
    module.graph.eliminate_dead_code()
    module.recompile()
    return replace(traced, module=module)


def chosen(traced: Traced, try_plan: TryPlan) -> Traced:
    """The graph with the choice for all of its loops that makes its step the fastest.

    Choices with more evaluations keep less, so that the first one that fits is looked for by
    halves. Where the graph has to recompute beside it, the next one is tried, too. Where none fits,
    it is the one that came nearest.
    """
    costs: dict[int, float] = {}
    floors: dict[int, int] = {}
    extra: dict[int, float] = {}

    def fits(number: int) -> bool:
        if number not in costs and number not in floors:
            candidate = with_choice(traced, number)
            try:
                plan = try_plan(candidate)
            except BudgetInfeasible as error:
                floors[number] = error.floor_bytes
            else:
                costs[number], extra[number] = plan.solution.cost, plan.extra_seconds
        return number in costs

    count = max(len(loop.choices()) for loop in loops_of(traced.module))
    first = bisect.bisect_left(range(count), True, key=fits)
    if first < count and extra[first] > 0 and first + 1 < count:
        fits(first + 1)
    if costs:
        taken = min(costs, key=lambda number: (costs[number], number))
    else:
        taken = min(floors, key=lambda number: (floors[number], number))
    return with_choice(traced, taken)


def _copy(module: fx.GraphModule) -> fx.GraphModule:
    graph, before = fx.Graph(), module.graph.output_node()
    output = graph.output(graph.graph_copy(module.graph, {}))
    output.meta = copy.copy(before.meta)
    copied = fx.GraphModule(module, graph)
    copied.meta.update(module.meta)
    return copied


def _choose(loop: Loop, slots: int, length: int) -> None:
    """Write a choice into a loop's nodes."""
    forward, backward = loop.forward, loop.backward
    operands, program, steps, _, _, wanted = _arguments(forward)
    others, _, gradients, *_ = _arguments(backward)
    made = len(gradients)
    forward.args = (operands, program, steps, slots, length, wanted)
    mode = torch_hooks.fake_mode_of(forward)
    assert mode is not None
    with mode:
        target = cast("Callable[..., list[torch.Tensor]]", forward.target)
        values = target(*torch_hooks.tree_map(_value, forward.args))
    values[:made] = forward.meta["val"][:made]
    forward.meta["val"] = values
    kept: list[fx.Node] = []
    last = forward
    like = next((user for user in forward.users if user.target is operator.getitem), forward)
    for place in range(made, len(values)):
        with forward.graph.inserting_after(last):
            last = forward.graph.call_function(operator.getitem, (forward, place))
        last.meta.update({k: v for k, v in like.meta.items() if k not in ("val", "tensor_meta")})
        last.meta["val"] = values[place]
        kept.append(last)
    backward.args = (others, kept, gradients, program, steps, slots, length, wanted)


def _value(argument: object) -> object:
    return traced_value(argument) if isinstance(argument, fx.Node) else argument


def _arguments(node: fx.Node) -> Any:
    return node.args
