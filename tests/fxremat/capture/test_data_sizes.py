"""Sizes that depend on the data: planned for the largest, right and within the budget for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import fxremat
from fxremat.errors import SymbolicSizeError
from tests.numerics.steps import plan_of, tight_budget

Inputs = tuple[torch.Tensor, ...]
ROWS = 48


def by_mask(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    y = x.sin()
    picked = torch.nn.functional.dropout(y[mask].sin().cos(), 0.3)
    return picked.sin().sum() + (y.cos() * x).sum()


def by_masked_select(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return x.exp().masked_select(mask).sin().sin().sum()


def by_nonzero(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    rows = mask.any(-1).nonzero().squeeze(-1)
    return (x.exp()[rows].sin() * 0.5).sin().sum()


def by_a_number(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (x.sin() * mask.sum().item()).cos().sin().sum()


def by_where_a_view_begins(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    start = mask[:, 0].sum().item()
    torch._check(start >= 0)
    torch._check(start < ROWS)
    return x.sin().narrow(0, start, 1).cos().sin().sum() + x.cos().sum()


def by_unique(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    kinds = mask.sum(-1).unique()
    return x.sin()[kinds].cos().sin().sum()


def by_parts(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """As experts are given their tokens."""
    count = mask[:, 0].sum()
    first, last = x.sin().split(torch.stack((count, ROWS - count)).tolist())
    return (first.sin() @ torch.ones(4, 4)).sin().sum() + last.cos().sum()


def by_a_stated_bound(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    count = mask.sum().item()
    torch._check(count >= 0)
    torch._check(count <= mask.numel())
    return (torch.ones(count, 4).sin() * x[0]).cos().sin().sum()


def by_repeats(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """As a length regulator stretches what is spoken."""
    longer = x.sin().repeat_interleave(mask.sum(-1), dim=0)
    torch._check(longer.shape[0] <= 4 * ROWS)
    return longer.cos().sin().sum()


def by_what_is_not_contiguous(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    columns, rows = mask.long().t().nonzero(as_tuple=True)
    return (x.exp()[rows, columns].sin() * 0.5).sin().sum()


PROGRAMS = [
    by_repeats,
    by_what_is_not_contiguous,
    by_mask,
    by_masked_select,
    by_nonzero,
    by_a_number,
    by_where_a_view_begins,
    by_unique,
    by_parts,
    by_a_stated_bound,
]


def batch(step: int) -> Inputs:
    """Masks with few ones, many and, in step 0, all but one row's."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(ROWS, 4, generator=generator)
    mask = x > (-9, 1.5, 0, -1)[step]
    mask[-1] = False
    return x.requires_grad_(), mask


def run_steps(call: Callable[..., torch.Tensor]) -> list[Any]:
    torch.manual_seed(3)
    left: list[Any] = []
    for step in range(4):
        x, mask = batch(step)
        loss = call(x, mask)
        loss.backward()
        left += [loss.detach(), x.grad, torch.get_rng_state()]
    return left


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("share", [1.0, 0.0])
def test_one_plan_for_all_sizes(program: Callable[..., torch.Tensor], share: float) -> None:
    budget = tight_budget(program, batch(0), share)
    step = fxremat.optimize(program, budget=budget, cost="flops")
    expected = run_steps(program)
    assert all(map(torch.equal, expected, run_steps(step)))
    for index in range(4):
        x, mask = batch(index)
        measured = fxremat.measure_peak(lambda: step(x, mask).backward()).peak_bytes  # noqa: B023
        assert measured <= plan_of(step).peak_bytes <= budget
    assert plan_of(step) is plan_of(step, 0)  # one plan


def test_the_largest_is_exact() -> None:
    """All of a mask: the plan's bytes are what the step takes."""
    step = fxremat.optimize(by_mask, budget=1.0, cost="flops")
    x, mask = batch(0)
    mask[:] = True
    step(x, mask).backward()
    x.grad = None
    held: list[torch.Tensor] = []

    def run() -> None:
        held.append(step(x, mask))
        held[0].backward()

    assert fxremat.measure_peak(run).peak_bytes == plan_of(step).peak_bytes


@pytest.mark.parametrize("rows", [1, 2])
def test_masks_of_one_and_two(rows: int) -> None:
    """Of one element torch itself doesn't say that no more can be picked."""
    step = fxremat.optimize(lambda x: x.sin()[x[:, 0] > 0].cos().sum(), budget=1.0, cost="flops")
    x = torch.ones(rows, 4, requires_grad=True)
    step(x).backward()
    ours, x.grad = x.grad, None
    x.sin()[x[:, 0] > 0].cos().sum().backward()
    assert torch.equal(ours, x.grad)


def test_a_size_without_a_bound() -> None:
    def unbounded(x: torch.Tensor) -> torch.Tensor:
        count = x.detach().sum().long().item()
        torch._check(count >= 0)
        return (torch.ones(count, 4).sin() * x[0]).sum()

    def difference(x: torch.Tensor) -> torch.Tensor:
        first, last = (x.detach()[i].sum().long().item() for i in (0, 1))
        torch._check(last - first >= 0)
        return (torch.ones(last - first, 4).sin() * x[0]).sum()

    for function in (unbounded, difference):
        with pytest.raises(SymbolicSizeError, match=r"nothing says how large.*torch\._check"):
            fxremat.optimize(function, budget=1.0)(torch.ones(3, 4, requires_grad=True))
