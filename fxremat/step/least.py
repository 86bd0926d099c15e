"""The plan of a part that is safe in any step: it saves the least, and with that takes the least.

Of a forward's values only those are saved that can't be made again from the part's inputs; backward
makes the others again when it first needs them. From there the peak of backward is lowered by quick
walks, which on parts of GPT-2, a U-Net and ResNet-50 came as low as a search of a second. The least
is not proven: it is what the first step of many graphs runs by.
"""

from __future__ import annotations

from fxremat.lower.lowering import Lowering
from fxremat.step.limits import Limits, limited
from fxremat.step.parts import part_plan
from fxremat_solvers import SOLVERS, Schedule, SolveOptions, Status, baseline

# What of its own peak a backward is tried with, one after the other.
_SHARES = (0.7, 0.5, 0.35, 0.25)
_NOBODY = frozenset[int]()


def least_saved(lowering: Lowering) -> Schedule:
    """The schedule that saves the least, of the lowest peak found."""
    as_it_is = baseline(lowering.problem)
    kept = must_be_saved(lowering)
    saved = sum(lowering.problem.values[value].nbytes for value in kept)
    plain = part_plan(lowering, as_it_is)
    if plain.saved_bytes(_NOBODY) <= saved:
        return as_it_is
    found = made_again(lowering, kept)
    reached = part_plan(lowering, found)
    high = reached.backward_peak(_NOBODY, 0)
    for share in _SHARES:
        backward = saved + int(share * (high - saved))
        limits = Limits(max(backward, plain.forward_bytes), saved, backward)
        within = limited(lowering, limits)
        solution = SOLVERS["greedy"].run(
            within.problem, within.budget_bytes, SolveOptions("greedy")
        )
        if solution.status is Status.INFEASIBLE:
            break
        found = within.schedule_of_part(solution.schedule)
    return found


def must_be_saved(lowering: Lowering) -> set[int]:
    """Forward's values that backward needs, however it is run, and that can't be made again."""
    problem, first = lowering.problem, lowering.tangents_op
    kept: set[int] = set()
    seen: set[int] = set()
    stack = [v for op in problem.ops[first + 1 :] for v in op.inputs]
    stack += problem.outputs
    while stack:
        value = stack.pop()
        made_by = problem.producer[value]
        if value in seen or not 0 <= made_by < first:
            continue
        seen.add(value)
        again = problem.ops[made_by].reruns
        if again and value in again[0].outputs:
            stack += again[0].inputs
        else:
            kept.add(value)
    return kept


def made_again(lowering: Lowering, kept: set[int]) -> Schedule:
    """Forward, and a backward that makes all of forward's values again but those kept."""
    problem, first = lowering.problem, lowering.tangents_op
    steps = list(range(first + 1))
    there = kept | set(problem.inputs) | set(problem.ops[first].outputs)

    def need(values: tuple[int, ...]) -> None:
        stack = [values]
        while stack:
            missing = [v for v in stack[-1] if v not in there]
            if not missing:
                stack.pop()
                continue
            op = problem.producer[missing[0]]
            rerun = problem.ops[op].reruns[0]
            if all(v in there for v in rerun.inputs):
                steps.append(op)
                there.update(rerun.outputs)
            else:
                stack.append(rerun.inputs)

    for index in range(first + 1, len(problem.ops)):
        op = problem.ops[index]
        need(op.inputs)
        steps.append(index)
        there.update(op.outputs)
    need(problem.outputs)
    return Schedule(tuple(steps))
