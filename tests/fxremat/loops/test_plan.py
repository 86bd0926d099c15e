"""Budgets and plans: the measured peak is the predicted one, for any number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxremat
from fxremat.loops.figures import Figures, Moment
from fxremat.loops.plan import MOST_CELLS, within
from fxremat.plan.budget import Budget
from fxremat_solvers.loops.binomial import evaluations
from fxremat_solvers.loops.segments import best_segments, segments_evaluations
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace
from tests.fxremat_solvers.loops.followed import interpret

Case = tuple[Callable[..., Any], torch.Tensor, list[torch.Tensor]]


def rk4() -> Case:
    cell = Cell(32)
    return cell, torch.randn(64, 32), list(cell.parameters())


def heat() -> Case:
    field = torch.rand(48, 48, requires_grad=True)

    def step(u: torch.Tensor, _: int) -> torch.Tensor:
        around = [torch.roll(u, shift, axis) for shift in (1, -1) for axis in (0, 1)]
        return u + 0.1 * field * (sum(around) - 4 * u) + 0.01 * u * (1 - u)

    return step, torch.rand(48, 48), [field]


def dropout() -> Case:
    weight = torch.randn(32, 32, requires_grad=True)
    return lambda y, _: F.dropout(torch.tanh(y @ weight), 0.2), torch.rand(64, 32), [weight]


CASES = {"rk4": rk4, "heat": heat, "dropout": dropout}


def measured(case: Case, **options: Any) -> int:
    step, y, leaves = case

    def run() -> None:
        final = fxremat.loop(step, y, **options)
        torch.autograd.grad(final, leaves, torch.ones_like(final))

    run()
    return fxremat.measure_peak(run).peak_bytes


@pytest.mark.parametrize("name", CASES)
def test_the_measured_peak_of_kept_states_is_the_predicted_one(name: str) -> None:
    case = CASES[name]()
    step, y, _ = case
    for slots in (1, 3, 6):
        found: set[tuple[int, int]] = set()
        for steps in (20, 40):
            plan = fxremat.loop.plan(step, y, steps=steps, slots=slots)
            assert plan.evaluations == plan.bound == evaluations(steps, slots)
            found.add((plan.peak_bytes, measured(case, steps=steps, schedule=plan)))
        assert len(found) == 1, "as many bytes for any number of steps"
        predicted, taken = found.pop()
        assert predicted == taken


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_the_measured_peak_with_tapes_is_the_predicted_one(name: str, share: float) -> None:
    case = CASES[name]()
    step, y, _ = case
    least = fxremat.loop.plan(step, y, steps=24, slots=1).peak_bytes
    most = fxremat.loop.plan(step, y, steps=24, budget=1.0).peak_bytes
    budget = least + int(share * (most - least))
    plan = fxremat.loop.plan(step, y, steps=24, budget=budget)
    assert plan.evaluations == interpret(plan.schedule(), 24).evaluations
    taken = measured(case, steps=24, schedule=plan)
    assert taken == plan.peak_bytes <= budget
    assert (plan.kind == "all tapes") == (share == 1.0)
    assert plan.tapes > 0 or share == 0.1


@pytest.mark.parametrize("budget", ["less", "more"])
def test_outputs_and_xs_count(budget: str) -> None:
    """Also where parts of the state need no gradients, of which a tape holds nothing."""
    cell, first = nn.GRUCell(8, 8), (torch.zeros(16, 8), torch.ones(100), torch.tensor(0))
    peaks: list[int] = []

    def step(state: Any, x: torch.Tensor) -> Any:
        h, shift, number = state
        new = cell(x, h)
        return (new, shift + new.detach().mean(), number + 1), new

    for steps in (20, 60):
        xs = torch.randn(steps, 16, 8, requires_grad=True)
        options: Any = {"xs": xs, "outputs": True}
        plan = fxremat.loop.plan(step, first, slots=4, **options)
        if budget == "more":
            plan = fxremat.loop.plan(step, first, budget=2 * plan.peak_bytes, **options)
            assert plan.states > 0
            assert plan.tapes > 0

        def run(options: Any = options, plan: Any = plan) -> None:
            (h, *rest), ys = fxremat.loop(step, first, schedule=plan, **options)
            seeds = [torch.ones_like(t) for t in (h, ys)]
            torch.autograd.grad([h, ys], [options["xs"], *cell.parameters()], seeds)
            del rest  # what is returned is held to the end

        run()
        taken = fxremat.measure_peak(run).peak_bytes
        assert plan.peak_bytes == taken
        peaks.append(taken)
    if budget == "less":
        # Outputs, their incoming gradients, and gradients of xs.
        assert peaks[1] - peaks[0] == 40 * 3 * 16 * 8 * 4


def test_a_budget_of_the_loop_itself_and_its_bits() -> None:
    cell, y = Cell(dropout=0.3), torch.randn(8, 16, requires_grad=True)
    leaves = [y, *cell.parameters()]
    expected = trace(lambda: plain(cell, y, steps=20), leaves)
    found = trace(lambda: fxremat.loop(cell, y, steps=20, budget=0.5, check="always"), leaves)
    assert_same(expected, found)
    assert all(p.grad is None for p in leaves)


def test_a_budget_of_a_loop_of_unknown_length() -> None:
    case = rk4()
    step, y, leaves = case
    figures = fxremat.loop.plan(step, y, steps=9, slots=1).figures
    each = figures.state + figures.random
    budget = figures.least(0) + 3 * each

    def run() -> None:
        final, _ = fxremat.loop(step, y, while_=lambda _, i: i < 50, schedule="auto", slots=4)
        torch.autograd.grad(final, leaves, torch.ones_like(final))

    run()
    assert fxremat.measure_peak(run).peak_bytes <= budget
    fxremat.loop(step, y, while_=lambda _, i: i < 9, budget=budget)
    with pytest.raises(fxremat.BudgetInfeasible):
        fxremat.loop(step, y, while_=lambda _, i: i < 9, budget=each)
    with pytest.raises(fxremat.OptionError, match="in bytes"):
        fxremat.loop(step, y, while_=lambda _, i: i < 9, budget=0.5)


def test_a_budget_that_is_too_small_names_one_that_is_not() -> None:
    case = heat()
    step, y, _ = case
    with pytest.raises(fxremat.BudgetInfeasible) as caught:
        fxremat.loop.plan(step, y, steps=20, budget="2KiB")
    plan = fxremat.loop.plan(step, y, steps=20, budget=caught.value.floor_bytes)
    assert plan.states == 1
    assert measured(case, steps=20, schedule=plan) <= caught.value.floor_bytes


def figures(state: int, tape: int) -> Figures:
    """A loop that keeps one state, its first, takes 12,000 bytes."""
    work = {Moment("pull", "rest", alone=True): 12_000 - tape}
    return Figures(state, 0, tape, tape - state, state, 0, work, 0, 0, 1.0, 3.0)


FIGURES = figures(1000, 4000)


@pytest.mark.parametrize("steps", [100, 1000, 3000])
def test_never_more_evaluations_than_uniform_checkpointing(steps: int) -> None:
    for nbytes in (20_000, 60_000, 160_000, 500_000):
        plan = within(Budget(nbytes=nbytes), steps, FIGURES)
        assert plan.peak_bytes <= nbytes
        slots, length = best_segments(steps, nbytes - 12_000, 1000, 4000)
        assert plan.evaluations <= segments_evaluations(steps, slots, length)
        assert plan.seconds == plan.evaluations - steps + 3 * steps


def test_many_rooms_are_put_into_fewer() -> None:
    """Bytes that share no unit: the table is coarser, or a closed form takes its place."""
    odd = figures(1009, 4001)
    coarse = within(Budget(nbytes=600_000), 3000, odd)
    assert (coarse.kind, coarse.bound) == ("states and tapes", None)
    long = within(Budget(nbytes=6_000_000), 100_000, odd)
    assert long.kind == "segments"
    assert max(coarse.peak_bytes, long.peak_bytes - 5_400_000) <= 600_000
    assert MOST_CELLS[True] < MOST_CELLS[False]


def test_a_plan_is_for_its_number_of_steps() -> None:
    step, y, _ = rk4()
    plan = fxremat.loop.plan(step, y, steps=9, slots=2)
    with pytest.raises(fxremat.OptionError, match="9 steps"):
        fxremat.loop(step, y, steps=10, schedule=plan)
    assert "9 steps" in str(plan)
    assert "evaluations" in str(plan)


@pytest.mark.parametrize(
    "options", [{}, {"slots": 2, "budget": 0.5}, {"slots": 0}, {"budget": 2.0}]
)
def test_options(options: Any) -> None:
    step, y, _ = rk4()
    options = {"steps": 9, **options}
    with pytest.raises((fxremat.OptionError, fxremat.BudgetError)):
        fxremat.loop.plan(step, y, **options)


@pytest.mark.parametrize("steps", [1, 3])
def test_loops_of_few_steps(steps: int) -> None:
    case = rk4()
    step, y, leaves = case
    options: Any = {"steps": steps}
    least = fxremat.loop.plan(step, y, slots=1, **options)
    most = fxremat.loop.plan(step, y, budget=1.0, **options)
    assert most.evaluations == steps
    for budget in (least.peak_bytes, most.peak_bytes):
        plan = fxremat.loop.plan(step, y, budget=budget, **options)
        assert measured(case, steps=steps, schedule=plan) == plan.peak_bytes <= budget
        expected = trace(lambda: plain(step, y, steps=steps), leaves)
        assert_same(
            expected, trace(lambda p=plan: fxremat.loop(step, y, steps=steps, schedule=p), leaves)
        )
    with pytest.raises(fxremat.BudgetInfeasible):
        fxremat.loop.plan(step, y, budget="2KiB", **options)


def test_a_budget_of_a_loop_of_unknown_length_with_outputs() -> None:
    weight, y = torch.rand(64, 64, requires_grad=True), torch.rand(64, 64)

    def step(y: torch.Tensor, _: int) -> Any:
        new = torch.sin(y * weight)
        return new, new * 2

    def run(**options: Any) -> Any:
        going = lambda _, i: i < 40  # noqa: E731
        final, ys, _ = fxremat.loop(step, y, while_=going, outputs=True, **options)
        return torch.autograd.grad([final, ys], [weight], [torch.ones_like(t) for t in (final, ys)])

    with pytest.raises(fxremat.OptionError, match="max_steps"):
        run(budget="4MiB")
    figures = fxremat.loop.plan(step, y, steps=9, outputs=True, slots=1).figures
    budget = figures.least(50) + 6 * figures.state
    run(budget=budget, max_steps=50)
    taken = fxremat.measure_peak(lambda: run(slots=5, max_steps=50)).peak_bytes
    assert taken <= budget


def test_planning_leaves_nothing_behind() -> None:
    cell, y = Cell(dropout=0.5), torch.randn(8, 16, requires_grad=True)
    before = torch.get_rng_state()
    fxremat.loop.plan(cell, y, steps=20, budget=0.5)
    assert torch.equal(before, torch.get_rng_state())
    assert y.grad is None
    assert all(p.grad is None for p in cell.parameters())
