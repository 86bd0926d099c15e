"""`warmup`: the step is planned, and nothing of the user's has changed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of

X = torch.randn(32, 16)


class Net(nn.Module):
    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.broken = broken
        self.first = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.GELU())
        self.second = nn.Sequential(nn.Dropout(0.1), nn.Linear(64, 16), nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if self.broken:
            torch._dynamo.graph_break()
        return self.second(x).square().mean()


def state_of(model: nn.Module) -> list[Any]:
    tensors = [t.clone() for t in (*model.parameters(), *model.buffers())]
    return [*tensors, torch.get_rng_state(), torch.tensor(random.getstate()[1]), np.random.rand(0)]


@pytest.mark.parametrize("broken", [False, True])
def test_the_step_is_planned_and_nothing_has_changed(broken: bool) -> None:
    model = Net(broken=broken)
    optimized = fxremat.optimize(model, budget=1.0)
    kept = torch.ones(64, 16)
    model.first[0].weight.grad = kept
    before, drawn = state_of(model), np.random.get_state()[1].copy()
    runs = 0

    def step() -> None:
        nonlocal runs
        runs += 1
        random.random()
        np.random.rand()
        optimized(X).backward()

    fxremat.warmup(step, optimized)
    assert runs == (2 if broken else 1)
    assert all(map(torch.equal, before[:-1], state_of(model)[:-1]))
    assert (np.random.get_state()[1] == drawn).all()
    assert model.first[0].weight.grad is kept
    assert torch.equal(kept, torch.ones(64, 16))
    assert model.first[0].bias.grad is None
    if broken:
        assert len(fxremat.explain_step(optimized).calls) == 2
    else:
        assert fxremat.explain(optimized).planned_peak_bytes > 0


def test_an_optimizer_is_refused_before_it_steps() -> None:
    model = nn.Linear(16, 16)
    optimized = fxremat.optimize(model, budget=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.detach().clone()

    def step() -> None:
        optimized(X).sum().backward()
        optimizer.step()

    with pytest.raises(fxremat.OptionError, match="ends with the backward"):
        fxremat.warmup(step, optimized)
    assert torch.equal(model.weight, before)
    assert model.weight.grad is None
    optimizer.step()


def test_what_is_optimized_is_given() -> None:
    with pytest.raises(fxremat.OptionError, match="give the modules"):
        fxremat.warmup(lambda: None, nn.Linear(2, 2))


def test_a_step_that_is_never_planned_is_heard() -> None:
    optimized = fxremat.optimize(nn.Linear(16, 16), budget=1.0)
    with pytest.warns(UserWarning, match="no plan for the step"):
        fxremat.warmup(lambda: None, optimized)
    assert compiled_of(optimized).backend.steps.count == 0


def test_an_infeasible_budget_is_heard_before_training() -> None:
    model = Net(broken=True)
    optimized = fxremat.optimize(model, budget="1KiB")
    buffers = [buffer.clone() for buffer in model.buffers()]
    with pytest.raises(fxremat.BudgetInfeasible):
        fxremat.warmup(lambda: optimized(X).backward(), optimized)
    assert all(map(torch.equal, buffers, model.buffers()))
