"""Segments of taped steps: counts, room, and uniform checkpointing as a special case."""

from __future__ import annotations

import pytest

from fxremat_solvers.loops import binomial
from fxremat_solvers.loops.segments import best_segments, segments, segments_evaluations
from tests.fxremat_solvers.loops.followed import interpret


@pytest.mark.parametrize("length", [1, 2, 5, 30])
@pytest.mark.parametrize("slots", [1, 3, 8])
def test_counts(length: int, slots: int) -> None:
    for steps in (1, 2, 7, 30, 61):
        found = interpret(segments(steps, slots, length), steps)
        assert found.evaluations == segments_evaluations(steps, slots, length)
        assert found.most_states <= slots
        assert found.most_tapes == min(length, steps)
        assert not found.states


def test_uniform_and_binomial() -> None:
    # Every segment but the last runs twice.
    assert segments_evaluations(100, 10, 10) == 190
    assert segments_evaluations(100, 7, 1) == binomial.evaluations(100, 7)


def test_the_best_fits() -> None:
    assert best_segments(100, 18, 1, 1) == (9, 10)
    slots, length = best_segments(1000, 150, 1, 4)
    assert slots + 4 * (length - 1) <= 150
    assert segments_evaluations(1000, slots, length) < binomial.evaluations(1000, 150)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        segments(3, 1, 0)
    with pytest.raises(ValueError, match="less than a state's"):
        best_segments(3, 1, 2, 1)
