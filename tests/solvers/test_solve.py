"""Every solver: schedules that replay, budgets that hold, costs that never rise with the budget."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import problems
from small_graphs import random_problem
from unhurried import solve

from fxremat_solvers import (
    SOLVERS,
    ArgumentError,
    BudgetError,
    Op,
    RematProblem,
    Solution,
    Status,
    UnknownSolverError,
    baseline,
    floor,
    pareto,
    plain_op,
    simulate,
)
from fxremat_solvers.exact import exact
from fxremat_solvers.generate import chain, layered, transformer, unet
from fxremat_solvers.prune import without_dead_runs

# Griewank & Walther 2000: P(n, s), the advances that reverse n uniform steps with s slots, the
# initial state's included (rows n, columns s = 1, 2, 3, 5, 10). The first sweep takes n - 1.
EXTRA_ADVANCES = {
    10: (45, 20, 15, 13, 9),
    20: (190, 65, 45, 33, 28),
    50: (1225, 285, 180, 122, 88),
    100: (4950, 845, 490, 316, 222),
}


def fraction(problem: RematProblem, of_peak: float) -> int:
    return max(1, int(of_peak * simulate(problem, baseline(problem)).peak_bytes))


def assert_sound(problem: RematProblem, budget: int, solution: Solution) -> None:
    replay = simulate(problem, solution.schedule)
    assert replay.peak_bytes == solution.peak_bytes
    assert math.isclose(replay.cost, solution.cost, rel_tol=1e-12)
    assert (solution.status is Status.INFEASIBLE) == (replay.peak_bytes > budget)
    if solution.status is not Status.INFEASIBLE:
        assert problem.baseline_cost <= solution.cost * (1 + 1e-12)
        assert solution.lower_bound <= solution.cost * (1 + 1e-12)
    assert without_dead_runs(problem, solution.schedule.ops) == solution.schedule.ops


@given(problems(24), st.sampled_from([1.0, 0.8, 0.6, 0.4]))
@settings(max_examples=25, deadline=None)
def test_schedules_replay_within_the_budget(problem: RematProblem, of_peak: float):
    budget = fraction(problem, of_peak)
    for name in ("auto", "greedy"):
        assert_sound(problem, budget, solve(problem, budget, solver=name))


@given(problems(16))
@settings(max_examples=8, deadline=None)
def test_cost_never_rises_with_the_budget(problem: RematProblem):
    peak = simulate(problem, baseline(problem)).peak_bytes
    solved = [solve(problem, budget) for budget in range(max(1, peak // 3), peak + 1)]
    feasible = [s for s in solved if s.status is not Status.INFEASIBLE]
    assert solved[len(solved) - len(feasible) :] == feasible
    costs = [s.cost for s in feasible]
    assert costs == sorted(costs, reverse=True)


def with_large_sizes(problem: RematProblem, seed: int) -> RematProblem:
    """The same graph with sizes like real ones, so that a budget can be missed by a byte."""
    draw = random.Random(seed)
    values = (replace(v, nbytes=v.nbytes * 100_000 + draw.randint(0, 999)) for v in problem.values)
    return replace(problem, values=tuple(values))


@pytest.mark.parametrize("seed", [11, 36, 42, 58, 64])
def test_tiny_graphs_are_solved_to_the_optimum(seed: int):
    problem = with_large_sizes(random_problem(seed, 8), seed)
    lowest = exact(problem, 1).peak_bytes
    assert floor(problem).peak_bytes == lowest
    for budget in (lowest - 1, lowest, fraction(problem, 0.9)):
        best, solved = exact(problem, budget), solve(problem, budget)
        assert (solved.status, solved.peak_bytes > budget) == (best.status, budget < lowest)
        assert math.isclose(solved.cost, best.cost) or budget < lowest


@given(problems(24), st.integers(0, 1000), st.sampled_from([0.8, 0.6]))
@settings(max_examples=15, deadline=None)
def test_auto_uses_the_budget_to_the_byte(problem: RematProblem, seed: int, of_peak: float):
    problem = with_large_sizes(problem, seed)
    other = solve(problem, fraction(problem, of_peak), solver="greedy")
    solved = solve(problem, other.peak_bytes)
    assert_sound(problem, other.peak_bytes, solved)
    assert solved.cost <= other.cost * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(1, 8, 2))
@pytest.mark.parametrize("solver", ["auto", "ilp", "mincut", "greedy"])
def test_one_dear_op_hides_nothing(seed: int, solver: str):
    """An op that costs ten million times the others and runs once: "optimal" still is."""
    problem = random_problem(seed, 11)
    first = replace(problem.ops[0], cost=1e8, reruns=())
    problem = replace(problem, ops=(first, *problem.ops[1:]))
    budget = exact(problem, 1).peak_bytes
    solved, best = solve(problem, budget, solver=solver), exact(problem, budget)
    assert solved.lower_bound <= best.cost
    if solved.status is Status.OPTIMAL:
        assert solved.cost == best.cost
    else:
        assert solver != "auto"


@pytest.mark.parametrize("problem", [layered(80, seed=3), unet(2), transformer(2)])
def test_same_seed_same_schedule(problem: RematProblem):
    budget = fraction(problem, 0.7)
    assert solve(problem, budget, seed=5) == solve(problem, budget, seed=5)


@pytest.mark.parametrize("n", sorted(EXTRA_ADVANCES))
@pytest.mark.parametrize(("column", "slots"), list(enumerate((1, 2, 3, 5, 10))))
def test_uniform_chains_match_the_binomial_minimum(n: int, column: int, slots: int):
    """x_0 is an input here: `slots` slots need slots - 1 states, plus state, state and gradient."""
    problem = chain(n)
    solution = solve(problem, slots + 2)
    assert_sound(problem, slots + 2, solution)
    assert solution.cost - problem.baseline_cost == EXTRA_ADVANCES[n][column] - (n - 1)


def test_a_budget_of_the_baseline_peak_changes_nothing():
    problem = unet(2)
    solution = solve(problem, fraction(problem, 1.0))
    assert solution.schedule == baseline(problem)
    assert solution.status is Status.OPTIMAL


def test_what_cannot_be_met_is_infeasible_with_the_lowest_peak_found():
    problem = unet(2)
    solution = solve(problem, 1)
    assert solution.status is Status.INFEASIBLE
    assert solution.peak_bytes < fraction(problem, 0.7)
    assert_sound(problem, 1, solution)
    lowest = floor(problem)
    again = solve(problem, lowest.peak_bytes, effort=0.1)
    assert again.status is not Status.INFEASIBLE


@pytest.mark.parametrize("seed", range(6))
def test_a_named_minimum_can_be_met(seed: int):
    """Whatever was asked for first, and whatever the ops are measured to cost then."""
    problem = with_large_sizes(random_problem(seed, 45), seed)
    asked = [solve(problem, budget, effort=0.2) for budget in (1, floor(problem).peak_bytes - 1)]
    named = {s.peak_bytes for s in asked if s.status is Status.INFEASIBLE}
    assert named
    draw = random.Random(seed)
    ops = tuple(repriced(op, draw.random()) for op in problem.ops)
    for minimum in named:
        for costs in (problem, replace(problem, ops=ops)):
            assert solve(costs, minimum, effort=0.2).status is not Status.INFEASIBLE


def repriced(op: Op, cost: float) -> Op:
    return replace(op, cost=cost, reruns=tuple(replace(r, cost=cost) for r in op.reruns))


def test_reordering_alone_fits_a_layered_graph():
    problem = layered(100, seed=1)
    solution = solve(problem, fraction(problem, 0.9))
    assert solution.cost == problem.baseline_cost
    assert solution.status is Status.OPTIMAL


@pytest.mark.parametrize(("of_peak", "gap"), [(0.8, 0.002), (0.5, 0.005)])
def test_a_transformer_is_solved_close_to_the_bound(of_peak: float, gap: float):
    problem = transformer(4)
    solution = solve(problem, fraction(problem, of_peak))
    assert solution.cost - solution.lower_bound <= gap * problem.baseline_cost


def test_auto_is_never_worse_than_greedy_or_cuts():
    problem = unet(3)
    for of_peak in (0.8, 0.6, 0.45):
        budget = fraction(problem, of_peak)
        best = solve(problem, budget).cost
        for name in ("greedy", "mincut"):
            other = solve(problem, budget, solver=name)
            if other.status is not Status.INFEASIBLE:
                assert best <= other.cost * (1 + 1e-9)


def test_front_rises_in_peak_and_falls_in_cost():
    front = pareto(unet(2), points=4)
    assert len(front) >= 3
    for lower, higher in pairwise(front):
        assert lower.peak_bytes < higher.peak_bytes
        assert lower.cost > higher.cost


@given(problems(16), st.data())
@settings(max_examples=50, deadline=None)
def test_runs_for_nothing_are_left_out(problem: RematProblem, data: st.DataObject):
    """Some ops run again right away: the second run makes the first one's work useless."""
    again = [op.recomputable and data.draw(st.booleans()) for op in problem.ops]
    ops: list[int] = []
    for op in range(len(problem.ops)):
        ops += [op] * (2 if again[op] else 1)
    live = without_dead_runs(problem, tuple(ops))
    assert sorted(set(live)) == list(range(len(problem.ops)))
    assert len(live) == len(problem.ops)
    assert simulate(problem, live).cost == pytest.approx(problem.baseline_cost)
    assert simulate(problem, live).peak_bytes <= simulate(problem, tuple(ops)).peak_bytes


def test_without_a_compiler_there_is_still_an_answer(monkeypatch: pytest.MonkeyPatch):
    from fxremat_solvers import auto

    monkeypatch.setattr(auto, "kernel", lambda _: None)
    problem = unet(2)
    budget = fraction(problem, 0.7)
    solution = solve(problem, budget)
    assert_sound(problem, budget, solution)
    assert solution.status is not Status.INFEASIBLE


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "1"])
def test_bad_budgets(budget: object):
    with pytest.raises(BudgetError, match="positive integer"):
        solve(chain(2), budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("argument", [{"time_limit_s": math.nan}, {"effort": 0.0}])
def test_bad_arguments(argument: dict[str, float]):
    with pytest.raises(ArgumentError, match=next(iter(argument))):
        solve(chain(4), 4, **argument)
    with pytest.raises(ArgumentError, match="points"):
        pareto(chain(4), points=1)


def test_without_time_there_is_a_plan_from_a_walk():
    problem = transformer(3)
    budget = fraction(problem, 0.6)
    solution = solve(problem, budget, time_limit_s=0.0)
    assert_sound(problem, budget, solution)
    assert solution.status is Status.TIME_LIMIT
    assert problem.baseline_cost < solution.lower_bound


def test_no_proof_is_lost_where_nothing_fits():
    for solver in ("auto", "ilp", "exact"):
        assert solve(chain(5), 1, solver=solver).lower_bound == math.inf


def test_ops_without_values():
    problem = RematProblem(
        (plain_op("a", (), (), 1.0, 5), plain_op("b", (), (), 1.0, 9)), (), (), (), None
    )
    for solver in SOLVERS:
        assert solve(problem, 4, solver=solver).status is Status.INFEASIBLE


def test_unknown_solver_lists_the_names():
    with pytest.raises(UnknownSolverError, match="greedy"):
        solve(chain(2), 5, solver="magic")
    assert {"auto", "greedy", "mincut", "ilp", "exact"} <= set(SOLVERS)
