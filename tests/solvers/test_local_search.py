"""The compiled kernel prices edits exactly as a full replay does; it is loaded only if used."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from random_problems import random_problem

from fxremat_solvers import RematProblem, baseline, kernel_state, simulate
from fxremat_solvers.candidates import candidate
from fxremat_solvers.generate import chain, layered, layered_network, transformer
from fxremat_solvers.kernel import Effort, kernel
from fxremat_solvers.local_search import HOT_SWAPS, TIGHT, Batch, Search, annealed, scale_of


@pytest.mark.parametrize("seed", range(40))
def test_prices_are_exact(seed: int):
    problem = random_problem(seed, 1 + seed)
    assert_exact(problem, seed)


@pytest.mark.parametrize("problem", [chain(20), layered(100), layered_network(100), transformer(2)])
def test_prices_are_exact_on_structured_graphs(problem: RematProblem):
    assert_exact(problem, 0)


def assert_exact(problem: RematProblem, seed: int) -> None:
    compiled = kernel(problem)
    assert compiled is not None
    plain = baseline(problem).ops
    budget = max(1, simulate(problem, plain).peak_bytes * 2 // 3)
    assert compiled.self_check(plain, budget, seed, 400) == -1
    effort = Effort(2000, temperature=(1.0, 0.01), price=(0.1, 1.0), time_limit_s=10.0)
    ops, _ = compiled.anneal(plain, budget, effort, seed)
    simulate(problem, ops)


def test_a_result_depends_on_nothing_but_its_arguments():
    problem = layered(100)
    plain = baseline(problem).ops
    budget = simulate(problem, plain).peak_bytes * 3 // 4
    effort = Effort(5000, temperature=(100.0, 0.5), price=(0.1, 1.0), time_limit_s=60.0)
    found: set[tuple[int, ...]] = set()
    for _ in range(2):
        compiled = kernel(problem)
        assert compiled is not None
        found.add(compiled.anneal(plain, budget, effort, 3)[0])
    assert len(found) == 1


def test_batches_side_by_side_end_as_each_alone_does():
    problem = layered(100)
    compiled = kernel(problem)
    assert compiled is not None
    search = Search(problem, compiled, scale_of(problem), deadline=math.inf)
    plain = candidate(problem, baseline(problem).ops, "baseline")
    budget = plain.peak_bytes * 3 // 4
    hot = Batch([plain], HOT_SWAPS, edits=3000, runs=1, seed=1)
    tight = Batch([plain, *annealed(search, budget, hot)], TIGHT, edits=2000, runs=5, seed=2)
    together = annealed(search, budget, hot, tight)
    assert together == annealed(search, budget, hot) + annealed(search, budget, tight)
    assert len(together) == 6
    assert len({found.ops for found in together}) > 1, "runs differ"


def test_a_schedule_may_outgrow_the_room_it_starts_with(monkeypatch: pytest.MonkeyPatch):
    problem = chain(30)
    compiled = kernel(problem)
    assert compiled is not None
    plain = baseline(problem).ops
    grown: list[kernel_state.State] = []

    def counted(state: kernel_state.State) -> kernel_state.State:
        grown.append(state)
        return kernel_state.enlarged(state)

    monkeypatch.setattr("fxremat_solvers.kernel.enlarged", counted)
    effort = Effort(20_000, temperature=(1e9, 0.01), price=(0.01, 1.0), time_limit_s=60.0, drop=9.0)
    ops, _ = compiled.anneal(plain, simulate(problem, plain).peak_bytes // 2, effort, 0)
    assert grown
    simulate(problem, ops)


WITHOUT_A_SEARCH = """
import sys
from fxremat_solvers import baseline, simulate, solve
from fxremat_solvers.generate import layered
problem = layered(30)
solve(problem, simulate(problem, baseline(problem).ops).peak_bytes)
assert "numba" not in sys.modules
"""

WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
from fxremat_solvers import baseline, simulate, solve
from fxremat_solvers.generate import layered
from fxremat_solvers.kernel import kernel
problem = layered(30)
assert kernel(problem) is None
budget = simulate(problem, baseline(problem).ops).peak_bytes * 9 // 10
assert solve(problem, budget).peak_bytes <= budget
"""


@pytest.mark.parametrize("program", [WITHOUT_A_SEARCH, WITHOUT_NUMBA])
def test_numba_is_imported_for_searches_only(program: str):
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
