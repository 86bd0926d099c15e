"""Large outputs that are summed up in many steps: the gradients of the weights of unrolled nets."""

from __future__ import annotations

from dataclasses import dataclass

from fxremat_solvers.model.problem import RematProblem

_WORTH = 0.01  # of the budget: smaller outputs are left out


@dataclass(frozen=True)
class Sums:
    """The large outputs that are summed up in many steps.

    `begin`: for each of them the op that begins it; none of these leads to another. `steps`: of
    the longest sum. `reach[k]`: the large outputs that op k leads to, a bit for each.
    """

    begin: tuple[int, ...]
    steps: int
    reach: tuple[int, ...]


def sums_of(problem: RematProblem, budget_bytes: int) -> Sums:
    """What is summed up, the sums whose steps take the most memory first.

    Of the ops that lead to one large output alone, those that take the most memory themselves,
    where there are several: the steps of a sum.
    """
    large = [v for v in problem.outputs if problem.values[v].nbytes > _WORTH * budget_bytes]
    goals = {value: 1 << k for k, value in enumerate(large)}
    reach = [0] * len(problem.ops)
    for k in range(len(problem.ops) - 1, -1, -1):
        for value in problem.ops[k].outputs:
            reach[k] |= goals.get(value, 0)
            for reader in problem.consumers[value]:
                reach[k] |= reach[reader]
    own = problem.own_bytes
    steps: dict[int, list[int]] = {}
    for k, goal in enumerate(reach):
        if goal.bit_count() != 1:
            continue
        known = steps.setdefault(goal, [])
        if known and own[k] > own[known[0]]:
            known.clear()
        if not known or own[k] == own[known[0]]:
            known.append(k)
    found = [known for known in steps.values() if len(known) > 1]
    found.sort(key=lambda known: (-own[known[0]], known[0]))
    return Sums(tuple(k[0] for k in found), max(map(len, found), default=0), tuple(reach))
