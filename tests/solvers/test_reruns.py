"""Problems whose reruns differ from first runs: what is proven holds for what runs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rerun_problems import dropout_chain, least_cost, random_reruns, with_state_always

from fxremat_solvers import (
    Op,
    RematProblem,
    Rerun,
    ScheduleError,
    SeveralRerunsError,
    Solution,
    SolverError,
    Status,
    Value,
    baseline,
    check,
    simulate,
    solve,
)
from fxremat_solvers.bounds import (
    evaluate,
    lower_bound,
    main_chain,
    peak_lower_bound,
    proof,
    relax,
)
from fxremat_solvers.candidates import candidate
from fxremat_solvers.exact import exact
from fxremat_solvers.greedy import greedy_candidates
from fxremat_solvers.kernel import Effort, kernel
from fxremat_solvers.mincut import mincut
from fxremat_solvers.profile import profiler
from fxremat_solvers.prune import without_dead_runs
from fxremat_solvers.stages import by_stages


def budget_between(problem: RematProblem, share: float) -> int:
    """From the least peak to the baseline's."""
    top = simulate(problem, baseline(problem)).peak_bytes
    least = exact(problem, -1).peak_bytes
    return least + int(share * (top - least))


def assert_sound(problem: RematProblem, budget: int, solved: Solution, best: float) -> None:
    replay = simulate(problem, solved.schedule)
    assert (replay.cost, replay.peak_bytes) == (solved.cost, solved.peak_bytes)
    assert solved.lower_bound <= best + 1e-9
    if solved.status is Status.INFEASIBLE:
        assert solved.peak_bytes > budget
        return
    assert solved.peak_bytes <= budget
    assert best - 1e-9 <= solved.cost
    if solved.status is Status.OPTIMAL:
        assert solved.cost == pytest.approx(best)


# ---- the memory model


def random_op() -> RematProblem:
    """A random op of 5 bytes and a state of 3, and two readers of what it makes."""
    values = (Value("y", 5), Value("state", 3, lazy=True), Value("a", 1), Value("b", 1))
    ops = (
        Op("draw", (), (0, 1), 2.0, 1, (Rerun((1,), (0,), 4.0, 3),)),
        Op("a", (0,), (2,), 1.0),
        Op("b", (0, 2), (3,), 1.0),
    )
    return RematProblem(ops, values, (), (3,))


def test_a_state_that_no_rerun_reads_takes_nothing():
    replay = simulate(random_op(), (0, 1, 2))
    assert replay.running_bytes == (6, 6, 7)
    assert replay.dies == ((), (), (0, 2))
    assert replay.cost == 4.0


def test_a_rerun_reads_the_state_and_has_a_cost_and_a_workspace_of_its_own():
    """
    draw   y state, workspace 1   9
    a      y state a              9    y dies
    draw   state a y, 3           12   state dies
    b      a y b                  7
    """
    replay = simulate(random_op(), (0, 1, 0, 2))
    assert replay.running_bytes == (9, 9, 12, 7)
    assert replay.dies[2] == (1,)
    assert replay.cost == 2.0 + 1.0 + 4.0 + 1.0


def test_a_lazy_value_that_is_made_again_unread_takes_nothing_either():
    values = (Value("lazy", 7, lazy=True), Value("end", 1))
    ops = (Op("make", (), (0,), 1.0, 0, (Rerun((), (0,), 1.0),)), Op("read", (0,), (1,), 1.0))
    problem = RematProblem(ops, values, (), (1,))
    assert simulate(problem, (0, 0, 1)).running_bytes == (0, 7, 8)


def test_what_only_the_first_run_makes_stays():
    values = (Value("y", 5), Value("statistics", 2), Value("end", 1))
    ops = (
        Op("norm", (), (0, 1), 1.0, 0, (Rerun((), (0,), 1.0),)),
        Op("read", (0,), (2,), 1.0),
    )
    problem = RematProblem(ops, values, (), (1, 2))
    assert simulate(problem, (0, 0, 1)).running_bytes == (7, 7, 8)
    assert simulate(problem, (0, 0, 1)).dies == ((0,), (), (0,))


def test_several_reruns_are_refused_by_name():
    again = Rerun((), (0,), 1.0)
    problem = RematProblem((Op("two", (), (0,), 1.0, 0, (again, again)),), (Value("v", 1),))
    for ask in (lambda: check(problem, (0,)), lambda: solve(problem, 5)):
        with pytest.raises(SeveralRerunsError, match=r"ops\[0\] \(two\) has 2 reruns"):
            ask()
    with pytest.raises(ScheduleError, match="not recomputable"):
        check(RematProblem((Op("once", (), (0,), 1.0),), (Value("v", 1),)), (0, 0))


# ---- against brute force


@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.just(4), st.floats(0, 1))
def test_the_model_spelled_out_is_that_of_the_oracle(seed: int, n_ops: int, share: float):
    """Every schedule of up to three more runs than ops, by the oracle alone."""
    problem = random_reruns(seed, n_ops)
    n = len(problem.ops)
    budget = budget_between(problem, share)
    least = math.inf
    for length in range(n, min(n + 3, 7) + 1):
        for ops in itertools.product(range(n), repeat=length):
            try:
                replay = simulate(problem, ops)
            except ScheduleError:
                continue
            if replay.peak_bytes <= budget:
                least = min(least, replay.cost)
    best = least_cost(problem, budget)
    assert best <= least
    found = exact(problem, budget).schedule
    if len(found) <= min(n + 3, 7):
        assert best == least


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 6), st.floats(0, 1))
def test_exact_is_brute_force(seed: int, n_ops: int, share: float):
    problem = random_reruns(seed, n_ops)
    budget = budget_between(problem, share)
    best = least_cost(problem, budget)
    assert exact(problem, budget).cost == pytest.approx(best)
    below = exact(problem, -1).peak_bytes - 1
    assert least_cost(problem, below) == math.inf


@settings(max_examples=250, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 8), st.floats(0, 1))
def test_bounds_are_below_the_optimum(seed: int, n_ops: int, share: float):
    problem = random_reruns(seed, n_ops)
    assert peak_lower_bound(problem) <= exact(problem, -1).peak_bytes
    budget = budget_between(problem, share)
    best = exact(problem, budget).cost
    found = proof(problem, budget)
    assert problem.baseline_cost - 1e-9 <= found.bound <= best + 1e-9
    for ops in found.schedules:
        simulate(problem, ops)


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 8), st.floats(0, 1), st.data())
def test_any_positions_bound_the_optimum(seed: int, n_ops: int, share: float, data: st.DataObject):
    """By cuts at any prices, and by the program over stages, whose schedules execute."""
    problem = random_reruns(seed, n_ops)
    budget = budget_between(problem, share)
    best = exact(problem, budget).cost - problem.baseline_cost
    if budget <= 0 or problem.cost_scale <= 0:
        return
    chain = main_chain(problem, budget)
    places = st.lists(st.integers(0, len(chain) - 1), min_size=1, max_size=4, unique=True)
    positions = sorted(data.draw(places))
    relaxation = relax(problem, [chain[place] for place in positions])
    scale = problem.cost_scale / budget
    dear = st.floats(0, 3).map(lambda price: price * scale)
    prices = np.array(data.draw(st.tuples(*[dear] * len(positions))))
    value, _ = evaluate(relaxation, prices, budget, problem.cost_scale / 1e9)
    assert value <= best + 1e-6
    staged = by_stages(problem, budget, chain, positions, 300_000)
    assert staged.extra <= best + 1e-9
    for ops in staged.schedules:
        simulate(problem, ops)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 8), st.floats(0, 1))
@pytest.mark.parametrize("solver", ["auto", "greedy", "mincut", "ilp"])
def test_solvers_say_what_runs(solver: str, seed: int, n_ops: int, share: float):
    problem = random_reruns(seed, n_ops)
    budget = budget_between(problem, share)
    if budget > 0:
        best = exact(problem, budget).cost
        assert_sound(problem, budget, solve(problem, budget, solver=solver), best)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.4, 0.95))
def test_search_says_what_runs(seed: int, share: float):
    """On eleven ops and more `auto` searches."""
    problem = random_reruns(seed, 12)
    budget = max(1, int(share * simulate(problem, baseline(problem)).peak_bytes))
    solved = solve(problem, budget, effort=0.05)
    try:
        best = exact(problem, budget, time_limit_s=0.5)
    except SolverError:  # too slow
        assume(False)
        return
    fits = best.status is Status.OPTIMAL
    assert_sound(problem, budget, solved, best.cost if fits else math.inf)


@pytest.mark.parametrize("solver", ["auto", "exact", "greedy", "mincut", "ilp"])
def test_the_cheapest_schedule_leaves_the_random_op_alone(solver: str):
    problem = dropout_chain()
    solved = solve(problem, 17, solver=solver)
    assert_sound(problem, 17, solved, best=59.0)
    assert solved.cost == 59.0
    assert solved.schedule.ops.count(3) == 1
    if solver in ("auto", "exact"):
        assert solved.status is Status.OPTIMAL


def test_exact_auto_bound_and_brute_force_agree_on_it():
    problem = dropout_chain()
    assert least_cost(problem, 17) == exact(problem, 17).cost == solve(problem, 17).cost == 59.0
    assert lower_bound(problem, 17) == 59.0
    for budget in range(exact(problem, 1).peak_bytes, 23):
        best = least_cost(problem, budget)
        assert exact(problem, budget).cost == solve(problem, budget).cost == best
        assert lower_bound(problem, budget) <= best
    # As a problem in which all runs of an op are alike it has another optimum.
    assert exact(with_state_always(problem), 17).cost == 109.0


# ---- the parts


@pytest.mark.parametrize("seed", range(60))
def test_prices_of_edits_are_exact(seed: int):
    problem = random_reruns(seed, 4 + seed // 2)
    compiled = kernel(problem)
    assert compiled is not None
    plain = baseline(problem).ops
    peak = simulate(problem, plain).peak_bytes
    budget = max(1, peak * 2 // 3)
    assert compiled.self_check(plain, budget, seed, 400) == -1
    effort = Effort(3000, temperature=(1.0, 0.01), price=(0.1, 1.0), time_limit_s=10.0)
    ops, _ = compiled.anneal(plain, budget, effort, seed)
    simulate(problem, ops)
    assert compiled.self_check(ops, budget, seed, 400) == -1


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 20), st.floats(0.3, 1))
def test_replays_walks_and_pruning_agree_with_the_oracle(seed: int, n_ops: int, share: float):
    problem = random_reruns(seed, n_ops)
    budget = max(1, int(share * simulate(problem, baseline(problem)).peak_bytes))
    schedules = [found.ops for found in greedy_candidates(problem, budget)]
    schedules.append(mincut(problem, budget, with_bound=False, iterations=10).schedule.ops)
    steps: list[int] = []
    for k in range(len(problem.ops)):
        steps += [j for j in range(k) if problem.ops[j].reruns and (seed + j + k) % 3 == 0]
        steps.append(k)
    schedules.append(tuple(steps))
    for ops in schedules:
        replay = simulate(problem, ops)
        figures = profiler(problem).running_bytes(np.array(ops))
        assert tuple(figures.tolist()) == replay.running_bytes
        live = candidate(problem, without_dead_runs(problem, ops), "pruned")
        assert live.cost <= replay.cost
        assert live.peak_bytes <= replay.peak_bytes
