"""Binomial schedules take the closed form's evaluations and no more slots than they are given."""

from __future__ import annotations

import pytest

from fxremat_solvers.loops.actions import Store
from fxremat_solvers.loops.binomial import binomial, evaluations
from tests.fxremat_solvers.loops.followed import interpret


def check(steps: int, slots: int) -> None:
    found = interpret(binomial(steps, slots), steps)
    assert found.evaluations == evaluations(steps, slots)
    assert found.tapes_made == steps
    assert found.most_states <= slots
    assert found.most_tapes == 1
    assert not found.states


@pytest.mark.parametrize("slots", range(1, 31))
def test_counts(slots: int) -> None:
    for steps in (*range(1, 40), *range(40, 201, 20), 199):
        check(steps, slots)


@pytest.mark.parametrize(("steps", "slots"), [(1000, 5), (10_000, 20), (100_000, 40)])
def test_long_loops(steps: int, slots: int) -> None:
    check(steps, slots)


def test_is_a_stream() -> None:
    assert next(binomial(10**9, 3)) == Store(0)


@pytest.mark.parametrize(("steps", "slots"), [(0, 1), (1, 0)])
def test_no_steps_or_no_slots(steps: int, slots: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        binomial(steps, slots)


@pytest.mark.parametrize("slots", [1, 3, 10, 25])
def test_as_published_schedules(slots: int) -> None:
    schedules = pytest.importorskip("checkpoint_schedules")
    for steps in (1, 2, 7, 50, 200):
        # Its storage of the first state counts as a slot, too.
        theirs = schedules.MultistageCheckpointSchedule(steps, min(slots, steps), 0)
        total = sum(a.n1 - a.n0 for a in theirs if isinstance(a, schedules.Forward))
        assert evaluations(steps, min(slots, steps)) == total
