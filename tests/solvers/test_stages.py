"""The program over stages: a valid bound from any positions, schedules that execute."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import block_stack, random_problem

from fxremat_solvers import Schedule, Status, baseline, simulate
from fxremat_solvers.bounds import Proof, deeper, main_chain, proof
from fxremat_solvers.exact import exact
from fxremat_solvers.stages import by_stages

WORK = 300_000


@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 9), st.floats(0, 1), st.data())
def test_any_positions_bound_the_optimum(
    seed: int, n_ops: int, share: float, data: st.DataObject
) -> None:
    problem = random_problem(seed, n_ops)
    top = simulate(problem, baseline(problem)).peak_bytes
    floor = exact(problem, -1).peak_bytes
    budget = floor + int(share * (top - floor))
    best = exact(problem, budget)
    assert best.status is Status.OPTIMAL
    chain = main_chain(problem, budget)
    places = st.lists(st.integers(0, len(chain) - 1), min_size=1, max_size=4, unique=True)
    positions = sorted(data.draw(places))
    staged = by_stages(problem, budget, chain, positions, WORK)
    assert staged.extra <= best.cost - problem.baseline_cost + 1e-9
    for ops in staged.schedules:
        replay = simulate(problem, Schedule(ops))
        if replay.peak_bytes <= budget:
            assert replay.cost >= best.cost - 1e-9


def test_a_schedule_that_fits_is_the_cheapest() -> None:
    problem = block_stack(3)
    peak = simulate(problem, baseline(problem)).peak_bytes
    for fraction in (0.5, 0.7):
        budget = int(peak * fraction)
        chain = main_chain(problem, budget)
        staged = by_stages(problem, budget, chain, [len(chain) // 2], 10 * WORK)
        last = simulate(problem, Schedule(staged.schedules[-1]))
        assert last.peak_bytes <= budget
        assert last.cost == pytest.approx(problem.baseline_cost + staged.extra, rel=1e-5)


def test_more_positions_say_more() -> None:
    problem = block_stack(6)
    budget = int(0.4 * simulate(problem, baseline(problem)).peak_bytes)
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
    budget = int(0.4 * simulate(problem, baseline(problem)).peak_bytes)
    first = proof(problem, budget)
    second = deeper(problem, budget, first)
    assert second.bound >= first.bound
    done = Proof(first.bound, (), None)
    assert deeper(problem, budget, done) is done
    assert proof(problem, 1) == Proof(math.inf)


def test_a_deadline_leaves_a_weaker_bound() -> None:
    problem = block_stack(6)
    budget = int(0.4 * simulate(problem, baseline(problem)).peak_bytes)
    whole = proof(problem, budget)
    hurried = proof(problem, budget, deadline=-math.inf)
    assert problem.baseline_cost < hurried.bound < whole.bound
    assert hurried.schedules == ()
    later = deeper(problem, budget, hurried)
    assert hurried.bound < later.bound
    assert deeper(problem, budget, hurried, deadline=-math.inf) == hurried
