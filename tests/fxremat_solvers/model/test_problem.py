"""The problem's own rules, and what is derived from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fxremat_solvers import (
    Op,
    RematProblem,
    Rerun,
    SeveralRerunsError,
    Value,
    check,
    plain_op,
    solve,
)


@pytest.mark.parametrize("ask", [lambda problem: check(problem, (0,)), lambda p: solve(p, 5)])
def test_several_reruns_are_refused_by_name(ask: Callable[[RematProblem], object]):
    again = Rerun((), (0,), 1.0)
    problem = RematProblem((Op("two", (), (0,), 1.0, 0, (again, again)),), (Value("v", 1),))
    with pytest.raises(SeveralRerunsError, match=r"ops\[0\] \(two\) has 2 reruns"):
        ask(problem)


def test_makers_and_readers_are_found():
    values = tuple(Value(name, 1) for name in ("x", "a", "b"))
    differs = Op("b", (1, 1), (2,), 1.0, 0, (Rerun((0,), (2,), 1.0),))
    problem = RematProblem((plain_op("a", (0,), (1,), 1.0), differs), values, (0,), (2,))
    assert problem.producer == (-1, 0, 1)
    assert problem.consumers == ((0,), (1,), ())
    assert problem.rerun_consumers == ((0, 1), (), ())
    assert problem.differing == {1}


@pytest.mark.parametrize(("costs", "unit"), [((4.0, 6.0), 2.0), ((4.0, 0.5), 0.0)])
def test_the_unit_of_costs_divides_them_all(costs: tuple[float, ...], unit: float):
    ops = tuple(plain_op(f"{k}", (), (k,), cost) for k, cost in enumerate(costs))
    assert RematProblem(ops, (Value("a", 1), Value("b", 1))).cost_unit == unit
