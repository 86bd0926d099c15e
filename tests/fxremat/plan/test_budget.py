"""Budgets: what is accepted, what it comes to in bytes, what is refused and how."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fxremat import Budget, BudgetError


@pytest.mark.parametrize(
    ("given", "nbytes"),
    [
        (1000, 1000),
        ("6GiB", 6 * 2**30),
        ("6GB", 6 * 10**9),
        ("512 MiB", 512 * 2**20),
        ("1.5kib", 1536),
        ("10 B", 10),
        (0.5, 400),
        (1.0, 800),
    ],
)
def test_accepted(given: object, nbytes: int) -> None:
    assert Budget.of(given).to_bytes(baseline_bytes=800) == nbytes


@pytest.mark.parametrize(
    "given",
    [
        0,
        -1,
        True,
        False,
        0.0,
        -0.5,
        1.5,
        float("nan"),
        float("inf"),
        "6",
        "6 XiB",
        "GiB",
        "",
        "-1GB",
        None,
        [1],
    ],
)
def test_refused(given: object) -> None:
    with pytest.raises(BudgetError):
        Budget.of(given)
    with pytest.raises(ValueError, match=r"\S"):
        Budget.of(given)


@pytest.mark.parametrize("taken", [True, False])
def test_device_subtracts_what_is_resident(taken: bool) -> None:
    model = nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10))
    optimizer = torch.optim.AdamW(model.parameters())
    if taken:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    parameters = 4 * (100 + 10 + 10 + 10)
    buffers = 4 * (10 + 10) + 8
    state = 2 * parameters + 4 * 4  # two moments, and a step count a parameter
    budget = Budget.device(100_000, optimizer=optimizer, model=model, reserve=1000)
    assert budget.nbytes == 100_000 - parameters - buffers - state - 1000


def test_device_with_nothing_left() -> None:
    model = nn.Linear(100, 100)
    with pytest.raises(BudgetError, match="nothing is left"):
        Budget.device("10KiB", optimizer=torch.optim.SGD(model.parameters()), model=model)
