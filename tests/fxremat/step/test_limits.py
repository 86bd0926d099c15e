"""Limits as ballast: within the budget just where forward, what is saved, and backward are."""

from __future__ import annotations

import random

import pytest

from fxremat.step.least import least_saved, made_again, must_be_saved
from fxremat.step.limits import Limits, limited
from fxremat.step.parts import part_plan
from fxremat_solvers import Schedule, baseline, simulate, solve
from tests.fxremat.step.small_parts import lowered_part

NOBODY = frozenset[int]()


def schedules() -> list[Schedule]:
    part = lowered_part()
    problem = part.problem
    peak = simulate(problem, baseline(problem)).peak_bytes
    found = [solve(problem, peak * k // 10, solver="greedy").schedule for k in (9, 7, 6)]
    return [baseline(problem), made_again(part, must_be_saved(part)), least_saved(part), *found]


@pytest.mark.parametrize("seed", range(8))
def test_within_the_budget_where_within_the_limits(seed: int) -> None:
    part, rng = lowered_part(), random.Random(seed)
    for schedule in schedules():
        plan = part_plan(part, schedule)
        taken = (plan.forward_bytes, plan.saved_bytes(NOBODY), plan.backward_peak(NOBODY, 0))
        # At its own figures it fits; with any of them a byte less it doesn't.
        loose = [n + rng.randint(0, 10**5) for n in taken]
        for limits in (Limits(*taken), Limits(*loose)):
            problem = limited(part, limits)
            replay = simulate(problem.problem, problem.schedule_of_problem(schedule))
            assert replay.peak_bytes <= problem.budget_bytes
        for short in range(3):
            tight = list(taken)
            tight[short] -= 1
            problem = limited(part, Limits(*tight))
            replay = simulate(problem.problem, problem.schedule_of_problem(schedule))
            assert replay.peak_bytes > problem.budget_bytes


def test_schedules_go_there_and_back() -> None:
    part = lowered_part()
    for schedule in schedules():
        problem = limited(part, Limits(10**9, 10**9, 10**9))
        there = problem.schedule_of_problem(schedule)
        assert problem.schedule_of_part(there) == schedule


def test_what_is_solved_under_limits_is_within_them() -> None:
    part = lowered_part()
    plain = part_plan(part, baseline(part.problem))
    most = plain.backward_peak(NOBODY, 0)
    saved = plain.saved_bytes(NOBODY) // 2
    problem = limited(part, Limits(most, saved, most))
    solution = solve(problem.problem, problem.budget_bytes, preset="brief")
    found = part_plan(part, problem.schedule_of_part(solution.schedule))
    assert found.saved_bytes(NOBODY) <= saved
    assert found.backward_peak(NOBODY, 0) <= most
    assert found.cost > plain.cost


def test_the_least_plan_saves_only_what_it_must() -> None:
    part = lowered_part()
    kept = must_be_saved(part)
    plan = part_plan(part, least_saved(part))
    assert plan.saved_bytes(NOBODY) <= sum(part.problem.values[v].nbytes for v in kept)
    again = part_plan(part, made_again(part, kept))
    assert plan.backward_peak(NOBODY, 0) <= again.backward_peak(NOBODY, 0)
