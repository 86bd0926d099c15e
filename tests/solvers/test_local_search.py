"""The native kernel prices edits exactly as a full replay does."""

from __future__ import annotations

import pytest
from random_problems import random_problem

from fxremat_solvers import RematProblem, baseline, simulate
from fxremat_solvers.generate import chain, layered, transformer
from fxremat_solvers.native import Effort, kernel


@pytest.mark.parametrize("seed", range(40))
def test_prices_are_exact(seed: int):
    problem = random_problem(seed, 1 + seed)
    assert_exact(problem, seed)


@pytest.mark.parametrize("problem", [chain(20), layered(100), transformer(2)])
def test_prices_are_exact_on_structured_graphs(problem: RematProblem):
    assert_exact(problem, 0)


def assert_exact(problem: RematProblem, seed: int) -> None:
    native = kernel(problem)
    if native is None:
        pytest.skip("no C compiler")
    plain = baseline(problem).ops
    budget = max(1, simulate(problem, plain).peak_bytes * 2 // 3)
    assert native.self_check(plain, budget, seed, 1500) == -1
    effort = Effort(2000, temperature=(1.0, 0.01), price=(0.1, 1.0), time_limit_s=10.0)
    ops, _ = native.anneal(plain, budget, effort, seed)
    simulate(problem, ops)
