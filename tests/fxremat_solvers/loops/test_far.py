"""Two places for states: optimal by an independent recursion, counted by the interpreter."""

from __future__ import annotations

import functools

import pytest

from fxremat_solvers.loops.binomial import evaluations
from fxremat_solvers.loops.far import best_period, far_plan, online_far
from tests.fxremat_solvers.loops.followed import interpret


def cheapest(steps: int, slots: int, price: float) -> float:
    @functools.cache
    def rest(k: int, paid: bool) -> float:
        found = [float(evaluations(k, slots))]
        found += [
            (price if paid else 0) + j + rest(k - j, True) + evaluations(j, slots)
            for j in range(1, k)
        ]
        return min(found)

    return rest(steps, False)


@pytest.mark.parametrize("price", [0.0, 2.0, 8.0, 1000.0])
@pytest.mark.parametrize("slots", [1, 3, 10])
def test_the_cheapest(slots: int, price: float) -> None:
    for steps in (1, 2, 13, 80):
        plan = far_plan(steps, slots, price / 4, 3 * price / 4)
        assert plan.price == pytest.approx(cheapest(steps, slots, price))
        found = interpret(plan.schedule(), steps)
        assert found.evaluations == plan.evaluations
        assert plan.price == pytest.approx(found.evaluations + price * plan.writes)
        assert found.stores[1] == found.loads[1] == plan.writes
        near = found.stores[0]
        assert near >= 1
        assert not found.states


@pytest.mark.parametrize("steps", [200, 1000])
def test_no_dearer_than_published_schedules(steps: int) -> None:
    """Disk-Revolve of `checkpoint_schedules` writes and reads the first state, too."""
    schedules = pytest.importorskip("checkpoint_schedules")
    theirs = [*schedules.DiskRevolve(steps, 10, wd=2, rd=2)]
    total = sum(a.n1 - a.n0 for a in theirs if isinstance(a, schedules.Forward))
    disk = schedules.StorageType.DISK
    moves = sum(
        1
        for a in theirs
        if (isinstance(a, schedules.Forward) and a.write_ics and a.storage == disk)
        or (isinstance(a, (schedules.Copy, schedules.Move)) and a.from_storage == disk)
    )
    assert far_plan(steps, 10, 2, 2).price <= total + 2 * moves


def test_long_loops() -> None:
    plan = far_plan(100_000, 10, 2, 2)
    found = interpret(plan.schedule(), 100_000)
    assert found.evaluations == plan.evaluations
    assert found.evaluations < 3 * 100_000


@pytest.mark.parametrize("slots", [1, 4])
def test_of_unknown_length(slots: int) -> None:
    period = best_period(slots, 2, 2)
    for steps in (0, 1, period, 5 * period + 2):
        found = interpret(online_far(slots, period, lambda i, steps=steps: i < steps))
        assert found.steps == steps
        assert found.stores[1] == max(0, -(-steps // period) - 1)
        assert not found.states


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="negative"):
        far_plan(3, 1, -1, 0)
