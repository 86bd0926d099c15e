"""The program over stages: a valid bound from any positions, schedules that execute."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import RematProblem, Status, simulate
from fxremat_solvers.bounds.cost_bound import Proof, by_program, main_chain, proof
from fxremat_solvers.bounds.staged_program import by_stages
from fxremat_solvers.reference.exact import exact
from tests.fxremat_solvers.budgets import budget_between, share_of_peak
from tests.fxremat_solvers.random_problems import random_problem, random_reruns
from tests.fxremat_solvers.small_graphs import block_stack

Draw = Callable[[int, int], RematProblem]

WORK = 300_000


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 9), st.floats(0, 1), st.data())
@pytest.mark.parametrize("draw", [random_problem, random_reruns])
def test_any_positions_bound_the_optimum(
    draw: Draw, seed: int, n_ops: int, share: float, data: st.DataObject
) -> None:
    problem = draw(seed, n_ops)
    budget = budget_between(problem, share)
    if budget <= 0 or problem.cost_scale <= 0:
        return
    best = exact(problem, budget)
    assert best.status is Status.OPTIMAL
    chain = main_chain(problem, budget)
    places = st.lists(st.integers(0, len(chain) - 1), min_size=1, max_size=4, unique=True)
    staged = by_stages(problem, budget, chain, sorted(data.draw(places)), WORK)
    assert staged.extra <= best.cost - problem.baseline_cost + 1e-9
    for ops in staged.schedules:
        replay = simulate(problem, ops)
        if replay.peak_bytes <= budget:
            assert replay.cost >= best.cost - 1e-9


def test_a_schedule_that_fits_is_the_cheapest() -> None:
    problem = block_stack(3)
    for share in (0.5, 0.7):
        budget = share_of_peak(problem, share)
        chain = main_chain(problem, budget)
        staged = by_stages(problem, budget, chain, [len(chain) // 3], 10 * WORK)
        last = simulate(problem, staged.schedules[-1])
        assert last.peak_bytes <= budget
        assert last.cost == pytest.approx(problem.baseline_cost + staged.extra, rel=1e-5)


def test_more_positions_say_more() -> None:
    problem = block_stack(6)
    budget = share_of_peak(problem, 0.4)
    chain = main_chain(problem, budget)
    one = by_stages(problem, budget, chain, [0], 0)
    assert (one.extra, one.schedules, one.positions) == (0.0, (), (0,))
    some = by_stages(problem, budget, chain, [len(chain) // 2], WORK // 10)
    assert some.positions is not None
    more = by_stages(problem, budget, chain, some.positions, 10 * WORK, known=some.extra)
    assert more.extra > some.extra > 0
    again = by_stages(problem, budget, chain, some.positions, 10 * WORK, known=some.extra)
    assert again == more


def test_deeper_goes_on_where_the_proof_ended() -> None:
    problem = block_stack(6)
    budget = share_of_peak(problem, 0.4)
    first = proof(problem, budget)
    second = by_program(problem, budget, first, deeper=True)
    assert second.bound >= first.bound
    done = Proof(first.bound, (), None)
    assert by_program(problem, budget, done, deeper=True) is done
    assert proof(problem, 1) == Proof(math.inf)


def test_a_deadline_leaves_a_weaker_bound() -> None:
    problem = block_stack(6)
    budget = share_of_peak(problem, 0.4)
    whole = proof(problem, budget)
    hurried = proof(problem, budget, deadline=-math.inf)
    assert problem.baseline_cost < hurried.bound < whole.bound
    assert hurried.schedules == ()
    later = by_program(problem, budget, hurried, deeper=True)
    assert hurried.bound < later.bound
    assert by_program(problem, budget, hurried, deeper=True, deadline=-math.inf) == hurried
