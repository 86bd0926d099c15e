"""Unrolled loops: their steps are found, planned alike, and the peak doesn't grow with them."""

from __future__ import annotations

import math

import pytest

from fxremat_solvers import RematProblem, baseline, check, simulate
from fxremat_solvers.model.schedule import Schedule
from fxremat_solvers.search.repeats import find_loop
from fxremat_solvers.search.unrolled import lowest_of_loop, unrolled
from fxremat_solvers.testing import ode, resnet
from tests.fxremat_solvers.joint_graphs import joint_graph


@pytest.mark.parametrize(("problem", "steps"), [(ode(16), 16), (joint_graph("lstm64"), 64)])
def test_the_steps_of_a_loop_are_found(problem: RematProblem, steps: int) -> None:
    loop = find_loop(problem)
    assert loop is not None
    assert len(loop.forward) == steps
    parts = [*loop.forward, loop.turn, *reversed(loop.backward)]
    assert [op for part in parts for op in part] == list(range(len(problem.ops)))
    lengths = {(len(a), len(b)) for a, b in zip(loop.forward, loop.backward, strict=True)}
    assert len(lengths) <= 3  # the first, the last and all others


def test_other_graphs_have_none() -> None:
    assert find_loop(resnet()) is None
    assert unrolled(resnet(), 1) == lowest_of_loop(resnet()) == []


@pytest.mark.parametrize("share", [0.5, 0.06])
def test_plans_fit_and_cost_little(share: float) -> None:
    problem = ode(48)
    budget = int(share * simulate(problem, baseline(problem)).peak_bytes)
    (plan,) = unrolled(problem, budget)
    check(problem, Schedule(plan.ops))
    assert plan.peak_bytes <= budget
    # Every step recomputed from its state costs 0.39 of the whole.
    assert plan.cost < (1.2 if share > 0.1 else 1.6) * problem.baseline_cost


def test_the_lowest_peak_hardly_grows_with_the_steps() -> None:
    short, long = (lowest_of_loop(ode(steps))[0] for steps in (16, 128))
    assert long.peak_bytes < 1.5 * short.peak_bytes


def test_steps_with_runs_that_differ_from_the_first() -> None:
    problem = joint_graph("lstm64")  # with dropout, whose state comes from its first run alone
    peak = simulate(problem, baseline(problem)).peak_bytes
    (lowest,) = lowest_of_loop(problem)
    (plan,) = unrolled(problem, peak // 2)
    assert lowest.peak_bytes < 0.15 * peak
    assert plan.peak_bytes <= peak // 2
    assert math.isclose(simulate(problem, Schedule(plan.ops)).cost, plan.cost)
