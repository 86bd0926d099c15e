"""Copies that the autograd engine makes of gradients are in the plan: measured peaks are exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fxremat
from tests.numerics.steps import check_input_gradient, plan_of

N = 256
X = torch.randn(4, N)


class Three(nn.Module):
    def __init__(self, loss: Callable[[Three, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(N, N))
        self.b = nn.Parameter(torch.randn(N, N))
        self.c = nn.Parameter(torch.randn(N, N))
        self.loss = loss

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.loss(self, x)


def shared(m: Three, x: torch.Tensor) -> torch.Tensor:
    """One tensor is the gradient of two parameters: a copy for one of them."""
    return (x @ (m.a + m.b)).square().sum() + (x @ m.c).sum()


def expanded(m: Three, x: torch.Tensor) -> torch.Tensor:
    """The gradient of a sum has strides of 0: a whole copy of four bytes."""
    return (x @ m.a).square().sum() + m.b.sum() + m.c.sum()


def permuted(m: Three, x: torch.Tensor) -> torch.Tensor:
    """The gradient comes with another order of dimensions: copied, then freed."""
    return torch.einsum("bi,oi->bo", x, m.a).square().sum() + (m.b.t() * m.c).square().sum()


def all_three(m: Three, x: torch.Tensor) -> torch.Tensor:
    return (x @ (m.a + m.b + m.c)).square().sum()


def none(m: Three, x: torch.Tensor) -> torch.Tensor:
    return ((x @ m.a) @ m.b @ m.c).square().sum()


@pytest.mark.parametrize(
    ("loss", "copies"), [(shared, 1), (expanded, 2), (permuted, 1), (all_three, 2), (none, 0)]
)
def test_the_peak_counts_them(
    loss: Callable[[Three, torch.Tensor], torch.Tensor], copies: int
) -> None:
    module = Three(loss)
    optimized = fxremat.optimize(module, budget=1.0, example_inputs=(X,))
    plan = plan_of(optimized)
    last = plan.problem.ops[-1]
    counted = last.workspace_bytes if last.name == "accumulate_gradients" else 0
    assert counted // (4 * N * N) == copies

    optimized(X).backward()
    module.zero_grad(set_to_none=True)
    measured = fxremat.measure_peak(lambda: optimized(X).backward())
    assert measured.peak_bytes == plan.peak_bytes


def test_tokens_of_effects_have_no_gradients() -> None:
    # solve checks its result by an op with an effect, whose token comes first among the inputs.
    torch._dynamo.reset()
    torch.manual_seed(0)
    b = torch.randn(3, 4, 2)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(x @ x.mT + torch.eye(4), b).square().sum()

    optimized = fxremat.optimize(loss, budget=1.0)
    check_input_gradient(loss, optimized, torch.randn(3, 4, 4))
