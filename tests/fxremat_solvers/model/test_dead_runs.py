"""Runs for nothing are left out, and nothing is lost by that."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import RematProblem, simulate
from fxremat_solvers.model.dead_runs import without_dead_runs
from tests.fxremat_solvers.random_problems import problems, random_reruns, with_reruns


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


@given(st.integers(0, 10**6), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_what_is_left_is_never_dearer_or_higher(seed: int, n_ops: int):
    problem = random_reruns(seed, n_ops)
    ops = with_reruns(problem, seed)
    before, after = simulate(problem, ops), simulate(problem, without_dead_runs(problem, ops))
    assert after.cost <= before.cost
    assert after.peak_bytes <= before.peak_bytes
