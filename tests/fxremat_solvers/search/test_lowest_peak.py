"""The floor: a low peak that depends on sizes alone and can be asked for."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from fxremat_solvers import Op, Status, floor
from fxremat_solvers.reference.exact import exact
from tests.fxremat_solvers.joint_graphs import joint_graph
from tests.fxremat_solvers.random_problems import random_problem, with_large_sizes
from tests.fxremat_solvers.unhurried import solve


@pytest.mark.parametrize("seed", [11, 36, 42, 58, 64])
def test_a_tiny_graph_gets_the_least_peak_there_is(seed: int):
    problem = with_large_sizes(random_problem(seed, 8), seed)
    assert floor(problem).peak_bytes == exact(problem, 1).peak_bytes


def test_it_depends_on_sizes_alone():
    problem = joint_graph("two-tower")
    ops = (repriced(op, op.cost * (1 + k % 7)) for k, op in enumerate(problem.ops))
    assert floor(replace(problem, ops=tuple(ops))).schedule == floor(problem).schedule


@pytest.mark.parametrize("seed", range(6))
def test_a_named_minimum_can_be_met(seed: int):
    """Whatever was asked for first, and whatever the ops are measured to cost then."""
    problem = with_large_sizes(random_problem(seed, 45), seed)
    asked = [
        solve(problem, budget, preset="brief") for budget in (1, floor(problem).peak_bytes - 1)
    ]
    named = {s.peak_bytes for s in asked if s.status is Status.INFEASIBLE}
    assert named
    draw = random.Random(seed)
    ops = tuple(repriced(op, draw.random()) for op in problem.ops)
    for minimum in named:
        for costs in (problem, replace(problem, ops=ops)):
            assert solve(costs, minimum, preset="brief").status is not Status.INFEASIBLE


def repriced(op: Op, cost: float) -> Op:
    return replace(op, cost=cost, reruns=tuple(replace(r, cost=cost) for r in op.reruns))


def test_a_floor_can_be_asked_for_again():
    problem = joint_graph("vgg16bn")
    lowest = floor(problem).peak_bytes
    for solver in ("auto", "greedy"):
        solution = solve(problem, lowest, solver=solver, preset="brief")
        assert solution.peak_bytes <= lowest
        assert solution.status is not Status.INFEASIBLE
        assert math.isfinite(solution.lower_bound)
