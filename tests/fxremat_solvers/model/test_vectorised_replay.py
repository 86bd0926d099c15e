"""The vectorised replay: the oracle's figures on any schedule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import RematProblem, simulate
from fxremat_solvers.model.vectorised_replay import profiler
from fxremat_solvers.reference.mincut import mincut
from fxremat_solvers.search.greedy import greedy_candidates
from tests.fxremat_solvers.budgets import share_of_peak
from tests.fxremat_solvers.random_problems import random_problem, random_reruns, with_reruns


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.floats(0.3, 1))
@pytest.mark.parametrize("draw", [random_problem, random_reruns])
def test_its_figures_are_the_oracle_s(
    draw: Callable[[int, int], RematProblem], seed: int, n_ops: int, share: float
):
    problem = draw(seed, n_ops)
    budget = share_of_peak(problem, share)
    schedules = [with_reruns(problem, seed)]
    schedules += [found.ops for found in greedy_candidates(problem, budget)]
    schedules.append(mincut(problem, budget, with_bound=False, iterations=10).schedule.ops)
    for ops in schedules:
        replay = simulate(problem, ops)
        figures = profiler(problem).running_bytes(np.array(ops))
        assert tuple(figures.tolist()) == replay.running_bytes
        assert profiler(problem).peak_bytes(np.array(ops)) == replay.peak_bytes


def test_no_ops_take_no_memory():
    assert profiler(RematProblem((), ())).peak_bytes(np.array([], dtype=np.int64)) == 0
