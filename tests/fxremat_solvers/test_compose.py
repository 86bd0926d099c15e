"""`compose`: the cheapest picks that fit, against all of them tried."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from fxremat_solvers.compose import Choice, compose, shares


def choice(cost: float, *loads: int) -> Choice:
    return Choice(cost, np.array(loads))


def all_picks(parts: list[list[Choice]], room: list[int]) -> list[tuple[float, int]]:
    """The cost and the overload of every pick."""
    found: list[tuple[float, int]] = []
    for picks in itertools.product(*parts):
        taken = sum(c.loads for c in picks)
        overload = max(t - r for t, r in zip(taken, room, strict=True))
        found.append((sum(c.cost for c in picks), overload))
    return found


def some_parts(seed: int) -> tuple[list[list[Choice]], list[int]]:
    rng = random.Random(seed)
    moments = rng.randint(1, 6)
    parts = [
        [
            choice(
                rng.random(),
                *(rng.randint(0, 10**9) if rng.random() < 0.7 else 0 for _ in range(moments)),
            )
            for _ in range(rng.randint(1, 4))
        ]
        for _ in range(rng.randint(1, 5))
    ]
    return parts, [rng.randint(0, 2 * 10**9) for _ in range(moments)]


@pytest.mark.parametrize("seed", range(60))
def test_picks_are_the_best_there_are(seed: int) -> None:
    parts, room = some_parts(seed)
    tried = all_picks(parts, room)
    found = compose(parts, room)
    fitting = [cost for cost, overload in tried if overload <= 0]
    assert found.fits == bool(fitting)
    if fitting:
        assert found.cost == pytest.approx(min(fitting))
        assert found.lower_bound == pytest.approx(found.cost, abs=1e-5)
        assert found.overload_bytes <= 0
    else:
        least = min(overload for _, overload in tried)
        largest = max(load for part in parts for c in part for load in c.loads)
        assert least <= found.overload_bytes <= least + 2e-3 * max(largest, *room)


def test_rooms_hold_to_the_byte() -> None:
    size = 10**10
    dear, cheap = choice(1.0, size), choice(0.5, size + 1)
    assert compose([[dear, cheap]], [size]).picks == (0,)
    assert compose([[dear, cheap]], [size + 1]).picks == (1,)


def test_without_parts_nothing_is_picked() -> None:
    assert compose([], []).fits
    assert not compose([[choice(0.0, 0)]], [-1]).fits


def test_shares_say_where_a_choice_is_wanted_between() -> None:
    small, large = choice(1.0, 10), choice(0.0, 30)
    ((a, b),) = shares([[small, large]], [20])
    assert (a, b) == (pytest.approx(0.5), pytest.approx(0.5))
    assert shares([[large]], [20]) == []
    assert math.isclose(compose([[small, large]], [20]).cost, 1.0)
