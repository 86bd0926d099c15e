"""Loops of an optimized step."""

from __future__ import annotations

from typing import Any

import torch

import fxremat
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace

QUICK: Any = {"solver": "greedy", "cost": "flops"}


def test_an_optimized_step() -> None:
    """Bits of the plain loop of that step. It is planned once, whatever the number of steps."""
    cell, y = Cell(dropout=0.2), torch.randn(8, 16, requires_grad=True)
    leaves = [y, *cell.parameters()]
    optimized = fxremat.optimize(cell, budget="1MiB", **QUICK)

    def step(y: torch.Tensor, _: int) -> torch.Tensor:
        return optimized(y, 1)

    expected = trace(lambda: plain(step, y, steps=5), leaves)
    assert_same(expected, trace(lambda: fxremat.loop(step, y, steps=5, slots=2), leaves))
