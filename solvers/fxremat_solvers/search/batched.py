"""Another order to start from, where large values are summed up in many steps.

An unrolled net adds to the gradient of every weight at every step. A program does so at once, so
that soon all the sums are live, each with what is being added to it. Instead, the ops that lead
to one sum alone can wait and then run together, sum after sum; and what leads to fewer sums (the
layers below) can stay behind what leads to more of them. That is the order made here. Local
search would have to move hundreds of steps together to get there.
"""

from __future__ import annotations

import math

from fxremat_solvers.model.accumulations import sums_of
from fxremat_solvers.model.orders import makers_of, topological_order
from fxremat_solvers.model.problem import RematProblem

_BEHIND = 1  # batches


def batched_order(problem: RematProblem, budget_bytes: int) -> list[int] | None:
    """The ops with those that wait for each other in batches; None where there are no such sums."""
    start = problem.first_backward_op
    sums = sums_of(problem, budget_bytes)
    if start is None or len(sums.begin) < 2:
        return None
    n_ops = len(problem.ops)
    # As many batches as each has steps.
    batches = max(1, round(math.sqrt(sums.steps)))
    groups: dict[int, list[int]] = {}
    for k in range(start, n_ops):
        groups.setdefault(sums.reach[k], []).append(k)
    shared = [goals for goals in groups if goals.bit_count() > 1]
    sizes = sorted({goals.bit_count() for goals in shared}, reverse=True)
    key: list[tuple[int, int, int, int, int]] = [(-1, 0, 0, 0, k) for k in range(n_ops)]
    for goals, members in groups.items():
        above = [s.bit_count() for s in shared if s & goals == goals]
        level = sizes.index(min(above)) if above else 0
        alone = goals.bit_count() == 1
        for rank, k in enumerate(members):
            batch = rank * batches // len(members) + _BEHIND * level
            key[k] = (batch, level, int(alone), goals if alone else 0, k)
    return topological_order(makers_of(problem), key)
