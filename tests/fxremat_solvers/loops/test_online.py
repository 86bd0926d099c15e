"""Online schedules: as many evaluations as foretold, and few beside those of a known length."""

from __future__ import annotations

import functools
from itertools import pairwise

import pytest

from fxremat_solvers.loops import binomial
from fxremat_solvers.loops.online import Keeper, online
from tests.fxremat_solvers.loops.followed import interpret

best = functools.cache(binomial.evaluations)


def evaluations(keeper: Keeper, steps: int, slots: int) -> int:
    """Each gap is reversed by the best schedule for the slots that are free by then."""
    states = keeper.states()
    gaps = [end - begin for begin, end in pairwise([*states, steps])]
    return steps + sum(best(gap, slots - i) for i, gap in enumerate(gaps))


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 20])
def test_counts(slots: int) -> None:
    for steps in (*range(1, 60), 200):
        found = interpret(online(slots, lambda i, steps=steps: i < steps))
        keeper = Keeper(slots)
        for state in range(1, steps):
            keeper.keep(state)
        assert found.steps == steps
        assert found.evaluations == evaluations(keeper, steps, slots)
        assert found.most_states <= slots
        assert not found.states


def test_no_steps() -> None:
    assert interpret(online(3, lambda _: False)).evaluations == 0


def test_no_slots() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        online(0, bool)


@pytest.mark.parametrize("slots", [5, 20, 100])
def test_at_most_a_third_more_than_a_known_length_needs(slots: int) -> None:
    keeper, ratios = Keeper(slots), [1.0]
    for steps in range(1, 20_001):
        if steps > 1:
            keeper.keep(steps - 1)
        if steps >= 20 and (steps < 1000 or steps % 59 == 0):
            ratios.append(evaluations(keeper, steps, slots) / best(steps, slots))
    assert max(ratios) <= 1.32
    assert sum(ratios) / len(ratios) <= 1.08
