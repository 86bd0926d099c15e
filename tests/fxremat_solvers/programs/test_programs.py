"""Programs: solved by HiGHS and by CBC alike, and found to have no point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fxremat_solvers.programs import by_pulp, highs
from fxremat_solvers.programs.program import Answer, Program, Writer
from fxremat_solvers.reference.ilp import ilp
from tests.fxremat_solvers.budgets import share_of_peak
from tests.fxremat_solvers.small_graphs import block_stack

needs_cbc = pytest.mark.skipif(not by_pulp.has_cbc(), reason="PuLP finds no CBC")
ENGINES = [
    lambda program: highs.minimise(program, steps=1000),
    pytest.param(lambda program: by_pulp.minimise(program, 60.0), marks=needs_cbc),
]


def one_row(at_least: float) -> Program:
    """Minimise 3a + 2b over a, b in {0, 1} with 2a + 2b at least so much, and c at most 1/2."""
    writer = Writer()
    a, b, c = writer.column(3.0), writer.column(2.0), writer.column(-1.0, high=0.5, whole=False)
    writer.row([(a, 2.0), (None, 5.0), (b, 2.0)], at_least)
    writer.row([(a, 1.0), (c, 1.0)], 0.0, 2.0)
    return writer.program()


@pytest.mark.parametrize("minimise", ENGINES)
@pytest.mark.parametrize(("at_least", "point"), [(1.0, [0, 1, 0.5]), (3.0, [1, 1, 0.5])])
def test_the_cheapest_point_is_found_and_proven(
    minimise: Callable[[Program], Answer], at_least: float, point: list[float]
) -> None:
    program = one_row(at_least)
    answer = minimise(program)
    assert answer.point is not None
    assert answer.optimal
    assert answer.point.tolist() == pytest.approx(point)
    assert answer.bound == pytest.approx(program.cost @ np.array(point))


@pytest.mark.parametrize("minimise", ENGINES)
def test_a_program_without_points_has_none(minimise: Callable[[Program], Answer]) -> None:
    answer = minimise(one_row(5.0))
    assert answer.point is None
    assert answer.infeasible


@needs_cbc
def test_both_find_the_same_plans_cost() -> None:
    problem = block_stack(1)
    budget = share_of_peak(problem, 0.7)
    found = [ilp(problem, budget, engine=engine) for engine in ("HiGHS", "CBC")]
    assert all(each.class_optimal for each in found)
    assert found[0].solution.cost == pytest.approx(found[1].solution.cost)
