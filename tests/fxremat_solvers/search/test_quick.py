"""A plan at once: other problems' schedules and greedy's, whichever is cheapest and fits."""

from __future__ import annotations

from dataclasses import replace

from fxremat_solvers import RematProblem, Schedule, Status, baseline, quick, simulate, solve
from fxremat_solvers.testing import chain
from tests.fxremat_solvers.budgets import peak_of


def larger(problem: RematProblem) -> RematProblem:
    """Half as large again, and slower."""
    values = (replace(value, nbytes=value.nbytes * 3 // 2) for value in problem.values)
    ops = (
        replace(
            op,
            cost=op.cost * 1.4,
            reruns=tuple(replace(again, cost=again.cost * 1.4) for again in op.reruns),
        )
        for op in problem.ops
    )
    return replace(problem, values=tuple(values), ops=tuple(ops))


SMALL = chain(24)
LARGE = larger(SMALL)


def test_a_schedule_of_another_size_is_taken_where_it_is_the_cheapest() -> None:
    budget = peak_of(SMALL) // 2
    searched = solve(SMALL, budget, solver="auto")
    found = quick(LARGE, budget * 3 // 2, [searched.schedule])
    assert found.cost <= quick(LARGE, budget * 3 // 2).cost
    assert found.cost <= simulate(LARGE, searched.schedule).cost
    assert found.peak_bytes <= budget * 3 // 2
    assert found.status is not Status.INFEASIBLE
    replay = simulate(LARGE, found.schedule)
    assert (replay.cost, replay.peak_bytes) == (found.cost, found.peak_bytes)


def test_one_that_does_not_fit_or_can_not_run_is_none() -> None:
    budget = peak_of(LARGE) // 2
    useless = [Schedule((0,)), Schedule((99999,)), baseline(LARGE)]
    assert quick(LARGE, budget, useless) == quick(LARGE, budget)


def test_where_nothing_fits_it_says_so() -> None:
    assert quick(LARGE, 1, [baseline(LARGE)]).status is Status.INFEASIBLE
