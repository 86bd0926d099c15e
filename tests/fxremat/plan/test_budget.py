"""Budgets: what is accepted, what it comes to in bytes, what is refused and how."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
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
        ("2G", 2 * 2**30),
        ("512M", 512 * 2**20),
        ("1.5 k", 1536),
        ("6 GiB", 6 * 2**30),
        (np.int64(2000), 2000),
        (np.uint32(2000), 2000),
        (torch.Size([2000])[0], 2000),
        (np.float64(0.5), 400),
        (np.float32(0.5), 400),
        (Fraction(1, 2), 400),
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
        1,
        999,
        "0.5",
        "2E",
        np.int64(-1),
        np.bool_(True),
        np.float64("nan"),
        torch.tensor(5000),
    ],
)
def test_refused(given: object) -> None:
    with pytest.raises(BudgetError):
        Budget.of(given)
    with pytest.raises(ValueError, match=r"\S"):
        Budget.of(given)


def test_a_few_bytes_are_taken_for_a_slip_unless_they_have_their_unit() -> None:
    with pytest.raises(BudgetError, match=r"'2GiB'.* 0\.5 or 1\.0.*'2B'"):
        Budget.of(2)
    assert Budget.of("2B").nbytes == 2
    assert Budget.of(Budget(nbytes=2)).nbytes == 2


def test_a_budget_holds_plain_numbers() -> None:
    """They are pickled with the model."""
    assert type(Budget.of(np.int64(2000)).nbytes) is int
    assert type(Budget.of(np.float64(0.5)).fraction) is float


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
