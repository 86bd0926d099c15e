"""Orders of first runs: what must come first does, then the least key."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from fxremat_solvers import RematProblem, baseline, simulate
from fxremat_solvers.model.orders import makers_of, reordered, topological_order
from tests.fxremat_solvers.random_problems import problems


def test_of_the_ops_that_can_come_next_the_least_key_does():
    assert topological_order([set(), set(), {0}, {1}], key=[4, 3, 2, 1]) == [1, 3, 0, 2]


def test_a_circle_is_refused():
    with pytest.raises(ValueError, match="wait for each other"):
        topological_order([{1}, {0}], key=[0, 1])


@given(problems())
@settings(max_examples=30, deadline=None)
def test_any_keys_give_an_order_that_can_run(problem: RematProblem):
    last_first = [-k for k in range(len(problem.ops))]
    again = reordered(problem, topological_order(makers_of(problem), last_first))
    assert simulate(again, baseline(again)).cost == pytest.approx(problem.baseline_cost)
