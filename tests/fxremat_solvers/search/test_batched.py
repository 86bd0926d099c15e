"""The order in batches, where large values are summed up in many steps."""

from __future__ import annotations

from itertools import pairwise

from fxremat_solvers import baseline, simulate
from fxremat_solvers.model.orders import reordered
from fxremat_solvers.search.batched import batched_order
from tests.fxremat_solvers.budgets import share_of_peak
from tests.fxremat_solvers.small_graphs import block_stack, unrolled


def test_the_steps_of_a_sum_run_together() -> None:
    problem = unrolled(25)
    order = batched_order(problem, share_of_peak(problem, 0.5))
    assert order is not None
    assert sorted(order) == list(range(len(problem.ops)))
    again = reordered(problem, order)
    assert simulate(again, baseline(again)).cost == problem.baseline_cost
    kinds = [op.name.split("_")[0] for op in again.ops if op.name.startswith("sum")]
    changes = sum(a != b for a, b in pairwise(kinds))
    assert changes < len(kinds) / 2  # in the program's order they take turns
    assert batched_order(block_stack(3), 10**6) is None
