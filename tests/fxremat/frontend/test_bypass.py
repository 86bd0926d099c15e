"""A step that went past the plan warns once, with the way out; a planned one never does."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn

import fxremat
from fxremat import UnplannedStepWarning


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).square().mean()


X = torch.randn(16, 8)


def heard(run: Callable[[], object]) -> int:
    """How many warnings about steps without a plan came."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return sum(1 for w in caught if w.category is UnplannedStepWarning)


def test_the_parts_are_run_instead_of_the_module() -> None:
    optimized = fxremat.optimize(Net(), budget=1.0)

    def steps() -> None:
        for _ in range(3):
            optimized.inner(X).square().mean().backward()

    assert heard(steps) == 1


def test_dynamo_is_told_to_leave_it_alone() -> None:
    optimized = fxremat.optimize(Net(), budget=1.0)

    def steps() -> None:
        with torch.compiler.set_stance("force_eager"):
            for _ in range(3):
                optimized(X).backward()

    assert heard(steps) == 1


def test_planned_steps_are_silent() -> None:
    optimized = fxremat.optimize(Net(), budget=1.0, example_inputs=X)
    assert heard(lambda: optimized(X).backward()) == 0
    assert heard(lambda: optimized.inner(X).sum().backward()) == 0, "a planned step has run"


def test_any_plan_of_the_module_will_do() -> None:
    model = Net()
    plans = [fxremat.optimize(model, budget=budget) for budget in (1.0, "1GiB")]
    assert heard(lambda: plans[0](X).backward()) == 0


def test_a_plan_of_a_function_around_the_module_will_do_too() -> None:
    model = Net()
    fxremat.optimize(model, budget=1.0)
    loss = fxremat.optimize(lambda x: model(x) * 2, budget=1.0)
    assert heard(lambda: loss(X).backward()) == 0


def test_planning_ahead_is_no_step() -> None:
    optimized = fxremat.optimize(Net(), budget=1.0, example_inputs=X)
    assert heard(lambda: optimized.inner(X).sum().backward()) == 1
