"""Loops beside compilers: of an optimized step, in an optimized model, under `torch.compile`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace

QUICK: Any = {"solver": "greedy", "cost": "flops"}


class Model(nn.Module):
    """A loop between two layers."""

    def __init__(self, loop: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.before, self.cell, self.after = nn.Linear(16, 16), Cell(dropout=0.2), nn.Linear(16, 4)
        self.run = lambda cell, y: loop(cell, y, steps=9, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.run(self.cell, torch.tanh(self.before(x)))
        return (self.after(y) ** 2).sum()


def test_an_optimized_step() -> None:
    """Bits of the plain loop of that step. It is planned once, whatever the number of steps."""
    cell, y = Cell(dropout=0.2), torch.randn(8, 16, requires_grad=True)
    leaves = [y, *cell.parameters()]
    optimized = fxremat.optimize(cell, budget="1MiB", **QUICK)

    def step(y: torch.Tensor, _: int) -> torch.Tensor:
        return optimized(y, 1)

    expected = trace(lambda: plain(step, y, steps=5), leaves)
    assert_same(expected, trace(lambda: fxremat.loop(step, y, steps=5, slots=2), leaves))


@pytest.mark.filterwarnings("error:Dynamo does not know")
@pytest.mark.parametrize("how", ["compile", "optimize"])
def test_a_loop_in_a_compiled_model(how: str) -> None:
    """It is one operation of one graph; bits stay."""
    torch.manual_seed(0)
    reference = Model(plain)
    own = Model(fxremat.loop, slots=2)
    own.load_state_dict(copy.deepcopy(reference.state_dict()))
    x = torch.randn(8, 16)
    call: Any
    if how == "compile":
        call = torch.compile(own, backend="aot_eager", fullgraph=True)
    else:
        call = fxremat.optimize(own, budget="1MiB", fullgraph=True, **QUICK)
    for _ in range(3):
        expected = trace(lambda: reference(x), [*reference.parameters()])
        assert_same(expected, trace(lambda: call(x), [*own.parameters()]))
