"""Online schedules: as many evaluations as foretold, and few beside those of a known length."""

from __future__ import annotations

import functools

import pytest

from fxremat_solvers.loops import binomial
from fxremat_solvers.loops.interpreter import interpret
from fxremat_solvers.loops.online import Keeper, online, online_evaluations

best = functools.cache(binomial.evaluations)


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 20])
def test_counts(slots: int) -> None:
    for steps in (*range(1, 60), 200):
        found = interpret(online(slots, lambda i, steps=steps: i < steps))
        assert found.steps == steps
        assert found.evaluations == online_evaluations(steps, slots)
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
            states = keeper.states()
            ends = [*states[1:], steps]
            gaps = [end - begin for begin, end in zip(states, ends, strict=True)]
            total = steps + sum(best(gap, slots - i) for i, gap in enumerate(gaps))
            ratios.append(total / best(steps, slots))
    assert max(ratios) <= 1.32
    assert sum(ratios) / len(ratios) <= 1.08
