"""A step's calls run by the plans of the rank that was first, where these fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch.distributed as dist

from fxremat import torch_hooks
from fxremat.plan.options import make_options
from fxremat.step.agree import agreed_step
from fxremat.step.compose import Front, StepPlan, peak_under
from fxremat.step.least import made_again, must_be_saved
from fxremat.step.record import Kind, Mark, Moment
from tests.fxremat.step.small_parts import lowered_part

if not dist.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

OPTIONS = make_options({"budget": 0.8})


def front() -> Front:
    """What one rank knows of the part."""
    part = lowered_part()
    return Front.of(part, made_again(part, must_be_saved(part)))


def step(calls: list[Front], picks: tuple[int, ...], outside_bytes: int = 0) -> StepPlan:
    """Two calls, whose residuals are held at the end."""
    nobody = frozenset[int]()
    mark = Mark(Kind.OUTSIDE, -1, nobody, dict.fromkeys(range(len(calls)), nobody))
    moments = (Moment(mark, outside_bytes, 0),)
    plans = tuple(each.plans[pick] for each, pick in zip(calls, picks, strict=True))
    peak = peak_under(moments, plans)
    mixed = peak_under(moments, [calls[0].baseline, calls[0].least])
    cost = sum(plan.cost for plan in plans)
    return StepPlan(plans, moments, mixed - outside_bytes, peak, peak, cost, cost, cost)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    shared = dist.HashStore()
    monkeypatch.setattr(torch_hooks, "shared_store", lambda: shared)
    return shared


@pytest.mark.usefixtures("store")
def test_the_first_ranks_plans_are_followed() -> None:
    one, other = [front()] * 2, [front()] * 2
    first, second = step(one, (0, 1)), step(other, (1, 0))
    assert agreed_step(first, one, OPTIONS) is first
    followed = agreed_step(second, other, OPTIONS)
    assert [p.schedule for p in followed.plans] == [p.schedule for p in first.plans]
    assert all(plan in other[0].plans for plan in followed.plans)
    assert followed.peak_bytes == first.peak_bytes <= followed.budget_bytes


@pytest.mark.usefixtures("store")
def test_a_plan_that_a_rank_does_not_know_is_added() -> None:
    one, other = [front()] * 2, [front()] * 2
    fewer = other[0]
    fewer.known[0] = replace(fewer.least)
    agreed_step(step(one, (0, 1)), one, OPTIONS)
    mine = replace(step(one, (1, 1)), plans=(fewer.least, fewer.least))
    followed = agreed_step(mine, other, OPTIONS)
    assert len(fewer.known) == 3
    assert followed.plans[0] is fewer.known[2]
    assert followed.plans[0].schedule == one[0].baseline.schedule


@pytest.mark.usefixtures("store")
def test_where_more_is_held_outside_a_rank_follows_its_own() -> None:
    one, other = [front()] * 2, [front()] * 2
    agreed_step(step(one, (0, 1)), one, OPTIONS)
    saved = one[0].baseline.saved_bytes(frozenset()) - one[0].least.saved_bytes(frozenset())
    mine = step(other, (1, 1), outside_bytes=saved)
    assert mine.fits
    assert agreed_step(mine, other, OPTIONS) is mine


def test_what_does_not_fit_is_not_given(store: Any) -> None:
    one = [front()] * 2
    burst = step(one, (0, 0))
    assert not burst.fits
    assert agreed_step(burst, one, OPTIONS) is burst
    assert store.num_keys() == 0
