"""What the first rank put into the store is followed by the others, where it fits."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch.distributed as dist

from fxremat import torch_hooks
from fxremat.lower.lowering import Lowering
from fxremat.plan.agree import agreed, agreed_plan, agreed_schedule, plan_key
from fxremat.plan.options import Options, make_options
from fxremat.plan.plan import Plan, follow
from fxremat_solvers import RematProblem, Schedule, Status, baseline, simulate, solve
from tests.fxremat.step.small_parts import lowered_part

if not dist.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

OPTIONS = make_options({"budget": 0.8})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store that two ranks share."""
    shared = dist.HashStore()
    monkeypatch.setattr(torch_hooks, "shared_store", lambda: shared)
    return shared


def plan_within(tenths: int, options: Options = OPTIONS) -> Plan:
    """A plan that takes at most so much, under a budget of 8 tenths."""
    lowering = lowered_part()
    problem = lowering.problem
    replay = simulate(problem, baseline(problem))
    found = solve(problem, replay.peak_bytes * tenths // 10, solver="greedy")
    plan = follow(lowering, replay, options, found.schedule)
    return replace(plan, budget_bytes=replay.peak_bytes * 8 // 10)


def test_alone_a_process_keeps_what_it_found() -> None:
    plan = plan_within(8)
    assert torch_hooks.shared_store() is None
    assert agreed_plan(plan, "searched") == (plan, "searched")


@pytest.mark.usefixtures("store")
def test_the_first_plan_is_followed() -> None:
    first, second = plan_within(7), plan_within(8)
    assert first.schedule != second.schedule
    assert agreed_plan(first, "quick") == (first, "quick")
    followed, origin = agreed_plan(second, "searched")
    assert origin == "quick"
    assert followed.schedule == first.schedule
    assert followed.peak_bytes == followed.simulation.peak_bytes == first.peak_bytes
    assert followed.solution.cost == pytest.approx(first.solution.cost)


@pytest.mark.usefixtures("store")
def test_a_dearer_plan_is_not_called_optimal() -> None:
    first, second = plan_within(7), plan_within(8)
    assert first.solution.cost > second.solution.cost
    second = replace(second, solution=replace(second.solution, status=Status.OPTIMAL))
    agreed_plan(first, "searched")
    assert agreed_plan(second, "searched")[0].solution.status is Status.FEASIBLE


@pytest.mark.usefixtures("store")
def test_one_that_does_not_fit_here_is_not_followed(caplog: pytest.LogCaptureFixture) -> None:
    first, mine = plan_within(10), plan_within(8)
    assert first.peak_bytes > mine.budget_bytes
    agreed_plan(first, "searched")
    with caplog.at_level(logging.WARNING, "fxremat"):
        assert agreed_plan(mine, "searched") == (mine, "searched")
    assert "it follows its own" in caplog.text


def test_a_store_that_fails_leaves_each_rank_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone:
        def compare_set(self, *_: object) -> bytes:
            raise RuntimeError("connection reset")

    monkeypatch.setattr(torch_hooks, "shared_store", Gone)
    with caplog.at_level(logging.WARNING, "fxremat"):
        assert agreed(lambda: "key", [1]) == [1]
    assert "connection reset" in caplog.text


@pytest.mark.usefixtures("store")
def test_a_schedule_that_cannot_run_is_not_followed() -> None:
    lowering = lowered_part()
    mine = baseline(lowering.problem)
    agreed_schedule(lowering, Schedule((0,)), OPTIONS, "least")
    assert agreed_schedule(lowering, mine, OPTIONS, "least") == mine


def with_times(lowering: Lowering, factor: float) -> Lowering:
    problem = lowering.problem
    ops = tuple(replace(op, cost=op.cost * factor, workspace_bytes=7) for op in problem.ops)
    return replace(lowering, problem=replace(problem, ops=ops))


def test_times_are_not_in_the_key_but_all_else_is() -> None:
    plan = plan_within(8)
    key = plan_key(plan, "plan")
    assert plan_key(plan.for_lowering(with_times(plan.lowering, 3.0)), "plan") == key
    problem = plan.problem
    larger = replace(problem.values[-1], nbytes=problem.values[-1].nbytes + 1)
    other: RematProblem = replace(problem, values=(*problem.values[:-1], larger))
    others = [
        plan_key(plan, "due"),
        plan_key(replace(plan, budget_bytes=plan.budget_bytes + 1), "plan"),
        plan_key(replace(plan, options=replace(OPTIONS, solver="greedy")), "plan"),
        plan_key(plan.for_lowering(replace(plan.lowering, problem=other)), "plan"),
    ]
    assert len({key, *others}) == 5
