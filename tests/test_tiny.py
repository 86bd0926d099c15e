"""The test to run first: one tiny model, in less memory than it would take, with the same bits."""

from __future__ import annotations

import torch
from torch import nn

import fxremat


def test_a_tiny_model_trains_in_less_memory_with_the_same_gradients() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(4)))
    x = torch.randn(256, 8)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return model(x).square().mean()

    def gradients(step: object) -> list[torch.Tensor]:
        return list(torch.autograd.grad(step(x), tuple(model.parameters())))  # type: ignore[operator]

    cheaper = fxremat.optimize(loss, budget=0.7)
    assert all(map(torch.equal, gradients(loss), gradients(cheaper)))
    plan = fxremat.explain(cheaper)
    assert plan.planned_peak_bytes <= plan.budget_bytes < plan.baseline_peak_bytes
