"""A solver that fails or returns nonsense is caught, replaced, and said aloud."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
import fxremat_solvers
from fxremat.frontend.compiled import compiled_of
from fxremat.pipeline.passes import Solve
from fxremat.plan import plan as planning
from fxremat.plan.budget import Budget
from fxremat.plan.options import Options
from fxremat.plan.plan import Search, search_schedule, search_threads
from fxremat_solvers import RematProblem, Schedule, Solution, Status, baseline
from fxremat_solvers.testing import chain
from tests.numerics.steps import assert_same, plan_of, run_steps, tight_budget


@pytest.mark.parametrize(
    ("threads", "ranks", "used"), [(None, "1", 4), (None, "4", 1), (None, "8", 1), (3, "4", 3)]
)
def test_ranks_share_the_processors(
    threads: int | None, ranks: str, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    monkeypatch.setattr(planning, "processors", lambda: 4)
    asked: list[int] = []
    monkeypatch.setattr(planning, "at_most", asked.append)
    search_threads(Options(Budget(nbytes=1), threads=threads))
    assert asked == [used]


def breaks(_problem: RematProblem, _budget: int, _options: Options) -> Solution:
    raise ZeroDivisionError("by nothing")


def cant_run(problem: RematProblem, budget: int, options: Options) -> Solution:
    found = search_schedule(problem, budget, options)
    return replace(found, schedule=Schedule(found.schedule.ops[::-1]))


def forgets_an_op(problem: RematProblem, budget: int, options: Options) -> Solution:
    found = search_schedule(problem, budget, options)
    return replace(found, schedule=Schedule(found.schedule.ops[1:]))


def bursts_the_budget(problem: RematProblem, budget: int, options: Options) -> Solution:
    found = search_schedule(problem, budget, options)
    return replace(found, schedule=baseline(problem), status=Status.OPTIMAL)


@pytest.mark.parametrize(
    ("search", "what"),
    [
        (breaks, "ZeroDivisionError: by nothing"),
        (cant_run, "a schedule that can't run"),
        (forgets_an_op, "a schedule that can't run"),
        (bursts_the_budget, "a schedule that needs"),
    ],
)
def test_a_solver_that_fails_is_replaced(search: Search, what: str) -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(4)))
    step = nn.Sequential(model, nn.Flatten(0), nn.Softmax(0))
    loss = _Loss(step)
    batches = [(torch.randn(64, 16),) for _ in range(3)]
    budget = tight_budget(loss, batches[0])
    twin = copy.deepcopy(loss)
    optimized = fxremat.optimize(loss, budget=budget, cost="flops", preset="brief")

    def with_this_search(name: str, state: Any, _seconds: float) -> Any:
        if name != "solve":
            return state
        lowered = lowereds[0]
        return Solve(state.plan.options, search=search).run(lowered)

    lowereds: list[Any] = []

    def keep(name: str, state: Any, _seconds: float) -> Any:
        if name == "lower":
            lowereds.append(state)
        return state

    compiled_of(optimized).backend.between = (keep, with_this_search)
    with pytest.warns(UserWarning, match=f"{what}.*planned by 'greedy' instead"):
        found = run_steps(loss, optimized, batches)
    assert_same(run_steps(twin, twin, batches), found)
    assert plan_of(optimized).peak_bytes <= budget


class _Loss(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).square().sum()


def test_a_plan_that_is_interrupted_leaves_nothing_half_compiled() -> None:
    loss = _Loss(nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.BatchNorm1d(16)))
    twin = copy.deepcopy(loss)
    optimized = fxremat.optimize(loss, budget=0.9)
    interrupted: list[str] = []

    def interrupt(name: str, state: Any, _seconds: float) -> Any:
        if name not in interrupted:
            interrupted.append(name)
            raise KeyboardInterrupt
        return state

    compiled_of(optimized).backend.between = (interrupt,)
    batches = [(torch.randn(64, 16),) for _ in range(3)]
    for _ in range(8):  # once in each pass
        with pytest.raises(KeyboardInterrupt):
            optimized(*batches[0])
    assert interrupted[-1] == "verify"
    assert not compiled_of(optimized).backend.history.graphs
    assert_same(run_steps(twin, twin, batches), run_steps(loss, optimized, batches))


@pytest.mark.parametrize(
    ("saved", "asked_for"),
    [
        # The second schedule saves as much: it spends all.
        ({20: 2, 22: 2}, [20, 22]),
        # It saves nothing, the third saves the half that it was given.
        ({20: 2, 22: 0, 21: 1}, [20, 22, 21]),
        # No other fits: the first is kept.
        ({20: 2, 22: 0, 21: 0}, [20, 22, 21]),
    ],
)
def test_what_is_written_in_place_may_be_spent(saved: dict[int, int], asked_for: list[int]) -> None:
    """A schedule's replay may need less than the solver counts; what is left is searched again."""
    problem = chain(20)
    whole = fxremat_solvers.simulate(problem, baseline(problem))
    budgets: list[int] = []

    def replay(_schedule: Schedule) -> Any:
        return replace(whole, peak_bytes=budgets[-1] - saved[budgets[-1]])

    def search(problem: RematProblem, budget: int, _options: Options) -> Solution:
        budgets.append(budget)
        return replace(COUNTED, schedule=baseline(problem), cost=100 - budget, peak_bytes=budget)

    lowering: Any = SimpleNamespace(problem=problem, again=(), replay=replay)
    solution, simulation = planning._solve(lowering, whole, 20, Options(20), search)
    assert budgets == asked_for
    spent = max(budget for budget in budgets if budget - saved[budget] <= 20)
    assert (solution.cost, simulation.peak_bytes) == (100 - spent, spent - saved[spent])


def test_the_floor_counts_what_is_written_in_place_once() -> None:
    problem = chain(20)

    def replay(schedule: Schedule) -> Any:
        counted = fxremat_solvers.simulate(problem, schedule)
        return replace(counted, peak_bytes=counted.peak_bytes - 1)

    lowering: Any = SimpleNamespace(problem=problem, replay=replay)
    whole = replay(baseline(problem))
    plan = planning.Plan(lowering, whole, Options(20), 20, COUNTED, whole, 0.0)
    assert plan.lowest.peak_bytes == fxremat_solvers.floor(problem).peak_bytes - 1


def test_a_second_search_that_fails_leaves_the_first_plan() -> None:
    problem = chain(20)
    whole = fxremat_solvers.simulate(problem, baseline(problem))
    budgets: list[int] = []

    def search(problem: RematProblem, budget: int, _options: Options) -> Solution:
        budgets.append(budget)
        if len(budgets) > 1:
            raise RuntimeError("no luck")
        return replace(COUNTED, schedule=baseline(problem), peak_bytes=budget)

    lowering: Any = SimpleNamespace(
        problem=problem, again=(), replay=lambda _: replace(whole, peak_bytes=15)
    )
    with pytest.warns(UserWarning, match="search for a cheaper plan failed .RuntimeError: no luck"):
        solution, _ = planning._solve(lowering, whole, 20, Options(20), search)
    assert solution.peak_bytes == 20


COUNTED = Solution(Schedule(()), 1.0, 1, 0.0, Status.FEASIBLE, "counted")
