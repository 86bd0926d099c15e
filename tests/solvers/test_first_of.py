"""Bounds by cases, and the order in batches: where large values are summed up in many steps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import block_stack, unrolled
from unhurried import solve

from fxremat_solvers import Status, baseline, bounds, simulate
from fxremat_solvers.batched import batched_order
from fxremat_solvers.bounds import lower_bound
from fxremat_solvers.exact import exact
from fxremat_solvers.first_of import in_order, least_of_cases
from fxremat_solvers.order import reordered
from fxremat_solvers.sums import sums_of


def peak_of(problem):
    return simulate(problem, baseline(problem)).peak_bytes


def test_sums_begin_with_their_first_step_that_takes_the_most() -> None:
    problem = unrolled(5)
    found = sums_of(problem, peak_of(problem) // 2)
    # The very first step of a sum only copies: the second takes two sums and a gradient.
    assert [problem.ops[k].name for k in found.begin] == ["sum0_3", "sum1_3"]
    assert found.steps == 4
    assert not sums_of(block_stack(3), 10**6).begin


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_bounds_by_cases_are_below_the_optimum(seed: int, share: float) -> None:
    problem = unrolled(3, seed)
    floor = exact(problem, -1).peak_bytes
    budget = floor + int(share * (peak_of(problem) - floor))
    best = exact(problem, budget)
    assert best.status is Status.OPTIMAL
    assert lower_bound(problem, budget) <= best.cost + 1e-9


def test_cases_sharpen_the_bound_and_plans_stay_above_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = unrolled(16, sums_bytes=(10, 10))
    budget = int(0.6 * peak_of(problem))
    plan = solve(problem, budget)
    assert plan.peak_bytes <= budget
    bound = lower_bound(problem, budget)
    assert plan.lower_bound == bound <= plan.cost
    monkeypatch.setattr(bounds, "least_of_cases", lambda *case: case[-1])
    assert lower_bound(problem, budget) < bound


def test_the_least_case_counts_and_only_above_what_is_known() -> None:
    problem = unrolled(6)
    budget = peak_of(problem) // 2
    asked: list[int] = []

    def bound(case, positions, enough):
        asked.append(len(positions))
        # The case's positions come in its order, and what must wait is behind them.
        assert list(positions) == sorted(positions)
        names = [op.name for op in case.ops]
        assert set(names) == {op.name for op in problem.ops}
        return min(enough, {"sum0_4": 5.0, "sum1_4": 7.0}[names[positions[0]]])

    assert least_of_cases(problem, budget, bound, 0.0) == 5.0
    assert least_of_cases(problem, budget, bound, 6.0) == 6.0
    assert set(asked) == {1, 2}


def test_pairs_put_ops_in_order_or_are_refused() -> None:
    problem = unrolled(4)
    early, late = ([op.name for op in problem.ops].index(name) for name in ("sum0_2", "sum1_2"))
    case, place = in_order(problem, [(late, early)])
    assert place[late] < place[early]
    assert simulate(case, baseline(case)).cost == problem.baseline_cost
    with pytest.raises(ValueError, match="contradict"):
        in_order(problem, [(late, early), (early, late)])


def test_batches_run_a_sum_s_steps_together() -> None:
    problem = unrolled(25)
    order = batched_order(problem, peak_of(problem) // 2)
    assert order is not None
    assert sorted(order) == list(range(len(problem.ops)))
    again = reordered(problem, order)
    assert simulate(again, baseline(again)).cost == problem.baseline_cost
    kinds = [op.name.split("_")[0] for op in again.ops if op.name.startswith("sum")]
    changes = sum(a != b for a, b in pairwise(kinds))
    assert changes < len(kinds) / 2  # in the program's order they take turns
    assert batched_order(block_stack(3), 10**6) is None
