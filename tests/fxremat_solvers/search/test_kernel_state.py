"""The state of a search: the memory that the oracle counts, whatever room it has."""

from __future__ import annotations

import pytest

from fxremat_solvers import simulate
from fxremat_solvers.model.rows import rows_of
from fxremat_solvers.search.kernel_state import arrays_of, best_of, enlarged, load, ops_of, peak_of
from tests.fxremat_solvers.random_problems import random_reruns, with_reruns


@pytest.mark.parametrize("seed", range(40))
def test_a_loaded_schedule_takes_the_memory_that_the_oracle_counts(seed: int):
    problem = random_reruns(seed, 1 + seed)
    steps = with_reruns(problem, seed)
    replay = simulate(problem, steps)
    state = load(arrays_of(problem), rows_of(problem).of(steps), 10, 0)
    assert tuple(state.running[: len(steps)]) == replay.running_bytes
    assert tuple(state.resident[: len(steps)]) == replay.resident_bytes


def test_more_room_changes_no_schedule():
    problem = random_reruns(3, 20)
    steps = rows_of(problem).of(with_reruns(problem, 3))
    state = load(arrays_of(problem), steps, 10, len(steps))
    more = enlarged(state)
    assert len(more.steps) == 2 * len(state.steps)
    assert ops_of(more) == ops_of(state) == list(steps)
    assert (best_of(more), peak_of(more)) == (best_of(state), peak_of(state))
