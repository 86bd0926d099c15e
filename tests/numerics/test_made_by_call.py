"""Inputs that the call itself makes, tensors of NumPy's numbers, count and are planned ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import fxremat
from tests.numerics.steps import plan_of, tight_budget


class Scaled(nn.Module):
    """As the skip connections of a diffusion U-Net are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 32)
        self.scale = np.sqrt(2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x).sin() / self.scale
        return ((x.cos() / self.scale).tanh() * np.float32(0.5)).sum()


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_numpy_numbers(share: float) -> None:
    torch.manual_seed(0)
    model, x = Scaled(), torch.randn(16, 32)
    budget = tight_budget(model, (x,), share)
    step = fxremat.optimize(model, budget=budget, cost="flops", example_inputs=x)
    assert plan_of(step).problem.ops[0].name == "call"
    model(x).backward()
    expected = [parameter.grad for parameter in model.parameters()]
    for _ in range(3):
        model.zero_grad()
        step(x).backward()
        assert all(map(torch.equal, expected, (p.grad for p in model.parameters())))
    model.zero_grad()
    held: list[torch.Tensor] = []

    def run() -> None:
        held.append(step(x))
        held[0].backward()

    measured = fxremat.measure_peak(run).peak_bytes
    assert measured <= plan_of(step).peak_bytes <= budget
    # Without the eight bytes of the number the plan would be too low.
    assert measured > plan_of(step).peak_bytes - 8
