"""A loss outside of the plan is said once a model, with its bytes and the way out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fxremat

X = torch.randn(64, 16)


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))


@pytest.mark.parametrize("ahead", [False, True])
def test_it_is_said_once_a_model(ahead: bool, caplog: pytest.LogCaptureFixture) -> None:
    optimized = fxremat.optimize(model(), budget=1.0, example_inputs=X if ahead else None)
    for x in (X, X[:32], X):
        optimized(x).square().mean().backward()
    (line,) = [r.message for r in caplog.records if "computed outside" in r.message]
    assert f"(64, 8) are counted, {64 * 8 * 4:,} bytes" in line
    assert "optimize a function that returns it" in line
    assert line in fxremat.explain(optimized, graph=0).notes


@pytest.mark.parametrize("through", ["optimize", "torch.compile"])
def test_nothing_is_said_of_a_loss_inside(through: str, caplog: pytest.LogCaptureFixture) -> None:
    layers = model()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return layers(x).square().mean()

    step: Any = fxremat.optimize(loss, budget=1.0)
    if through == "torch.compile":
        step = torch.compile(loss, backend="fxremat", options={"budget": 1.0})
    step(X).backward()
    assert not [record for record in caplog.records if record.name == "fxremat"]


def test_it_is_said_under_torch_compile_too(caplog: pytest.LogCaptureFixture) -> None:
    compiled = torch.compile(model(), backend="fxremat", options={"budget": 1.0})
    for x in (X, X[:32]):
        compiled(x).square().mean().backward()
    assert len([r for r in caplog.records if "computed outside" in r.message]) == 1
