"""Loops in plain Python, and what they leave: results, gradients, the random state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

Tree = Any


class Cell(nn.Module):
    """Runge and Kutta's fourth order step of a network: each parameter is used four times."""

    def __init__(self, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 32)
        self.outer = nn.Linear(32, width)
        self.dropout = nn.Dropout(dropout)

    def slope(self, time: float, y: torch.Tensor) -> torch.Tensor:
        return self.outer(self.dropout(torch.tanh(self.inner(y) + time)))

    def forward(self, y: torch.Tensor, i: int) -> torch.Tensor:
        h, t = 0.1, 0.1 * i
        first = self.slope(t, y)
        second = self.slope(t + h / 2, y + h / 2 * first)
        third = self.slope(t + h / 2, y + h / 2 * second)
        fourth = self.slope(t + h, y + h * third)
        return y + h / 6 * (first + 2 * second + 2 * third + fourth)


def plain(
    step: Callable[[Any, Any], Any],
    state: Tree,
    *,
    steps: int | None = None,
    xs: Tree = None,
    outputs: bool = False,
) -> Tree:
    """The plain loop: xs unbound, outputs stacked once."""
    if xs is None:
        given: Sequence[Any] = range(steps or 0)
    else:
        leaves, nesting = pytree.tree_flatten(xs)
        given = [
            pytree.tree_unflatten(x, nesting)
            for x in zip(*(t.unbind(0) for t in leaves), strict=True)
        ]
    found: list[Tree] = []
    for each in given:
        state = step(state, each)
        if outputs:
            state, output = state
            found.append(output)
    if not outputs:
        return state
    return state, pytree.tree_map(lambda *each: torch.stack(each), *found)


@dataclass(frozen=True)
class Trace:
    results: list[Any]
    gradients: list[torch.Tensor | None]
    random: torch.Tensor


def trace(run: Callable[[], Tree], leaves: Sequence[torch.Tensor]) -> Trace:
    """Run from one seed, and differentiate a sum of all results with random weights."""
    torch.manual_seed(5)
    results = pytree.tree_leaves(run())
    weights = torch.Generator().manual_seed(1)
    loss = torch.zeros(())
    for result in results:
        if isinstance(result, torch.Tensor) and result.requires_grad:
            weight = torch.randn(result.shape, generator=weights).to(result)
            loss = loss + (result * weight).sum().to(loss)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    return Trace(results, list(gradients), torch.get_rng_state())


def assert_same(expected: Trace, found: Trace) -> None:
    assert len(expected.results) == len(found.results)
    for number, (a, b) in enumerate(zip(expected.results, found.results, strict=True)):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), f"result {number}"
            assert a.requires_grad == b.requires_grad, f"result {number}"
        else:
            assert a == b
    assert any(g is not None for g in expected.gradients)
    for number, (a, b) in enumerate(zip(expected.gradients, found.gradients, strict=True)):
        assert (a is None) == (b is None), f"gradient {number}"
        assert a is None or torch.equal(a, b), f"gradient {number}"
    assert torch.equal(expected.random, found.random)
