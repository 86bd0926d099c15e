"""The compiled search: it prices edits as a full replay does, and is loaded only if used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from fxremat_solvers import RematProblem, baseline, simulate
from fxremat_solvers.search.kernel import Annealing, kernel
from fxremat_solvers.search.kernel_state import (
    BLOCK,
    arrays_of,
    load,
    ops_of,
    peak_of,
    scalars_of,
)
from fxremat_solvers.testing import chain, layered, layered_network, transformer
from tests.fxremat_solvers.budgets import share_of_peak
from tests.fxremat_solvers.random_problems import random_problem, random_reruns


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("draw", [random_problem, random_reruns])
def test_prices_are_exact(draw: Callable[[int, int], RematProblem], seed: int):
    assert_exact(draw(seed, 1 + seed * 2 // 3), seed)


@pytest.mark.parametrize("problem", [chain(20), layered(100), layered_network(100), transformer(2)])
def test_prices_are_exact_on_structured_graphs(problem: RematProblem):
    assert_exact(problem, 0)


def assert_exact(problem: RematProblem, seed: int) -> None:
    plain = baseline(problem).ops
    budget = share_of_peak(problem, 2 / 3)
    assert_loaded_anew_is_the_same(problem, plain, budget, seed)
    run = Annealing(2000, temperature=(1.0, 0.01), price=(0.1, 1.0), time_limit_s=10.0)
    ops = kernel(problem).anneal(plain, budget, run, seed)
    simulate(problem, ops)
    assert_loaded_anew_is_the_same(problem, ops, budget, seed)


def assert_loaded_anew_is_the_same(
    problem: RematProblem, ops: Sequence[int], budget: int, seed: int
) -> None:
    """After every edit that is taken the state is what loading its schedule gives."""
    search, arrays = kernel(problem), arrays_of(problem)
    cost = sum(arrays.ops["cost"]) / len(arrays.ops)
    price = 0.1 * cost / (sum(arrays.values["nbytes"]) / len(arrays.values) + 1)
    run = Annealing(400, (cost, cost), (price, price), time_limit_s=0.0)
    state = search.started(ops, budget, run, seed)
    ids: list[int] = []
    for edit in range(run.edits):
        state = search.advanced(state, edit + 1)
        k = scalars_of(state)
        before, ids = ids, list(state.steps[: k.n_steps])
        if ids == before:
            continue
        again = load(arrays, ops_of(state), budget, len(ops))
        fresh = scalars_of(again)
        sums = pytest.approx((fresh.cost, fresh.over), rel=1e-9, abs=1e-9 * k.cost)
        assert (k.cost, k.over) == sums
        assert k.n_repeated == fresh.n_repeated
        assert max(state.block_max[: -(-k.n_steps // BLOCK)], default=0.0) == peak_of(again)
        for one, other in ((state.running, again.running), (state.resident, again.resident)):
            assert list(one[: k.n_steps]) == list(other[: k.n_steps])


def test_a_result_depends_on_nothing_but_its_arguments():
    problem = layered(100)
    plain = baseline(problem).ops
    budget = share_of_peak(problem, 0.75)
    run = Annealing(5000, temperature=(100.0, 0.5), price=(0.1, 1.0), time_limit_s=60.0)
    found = {kernel(problem).anneal(plain, budget, run, 3) for _ in range(2)}
    assert len(found) == 1


def test_a_schedule_may_outgrow_the_room_it_starts_with():
    """Which is for twice the steps and some. Few states fit: most ops run many times."""
    problem = chain(100)
    plain = baseline(problem).ops
    run = Annealing(200_000, temperature=(1.0, 0.01), price=(0.1, 10.0), time_limit_s=60.0)
    ops = kernel(problem).anneal(plain, 4, run, 0)
    assert len(ops) > 4 * len(plain)
    assert simulate(problem, ops).peak_bytes < share_of_peak(problem, 0.1)


WITHOUT_A_SEARCH = """
import sys
from fxremat_solvers import baseline, simulate, solve
from fxremat_solvers.testing import layered
problem = layered(30)
solve(problem, simulate(problem, baseline(problem).ops).peak_bytes)
assert "numba" not in sys.modules
"""


def test_numba_is_imported_for_searches_only():
    ran = subprocess.run([sys.executable, "-c", WITHOUT_A_SEARCH], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
