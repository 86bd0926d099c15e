"""What is done with the bytes that CUDA's allocator says a step took; no GPU is needed for that."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from fxremat.frontend.allocator_check import AllocatorCheck
from fxremat.frontend.backend import Backend
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.plan.options import make_options
from fxremat.step.part import Watch

CUDA = torch.device("cuda")


def test_a_step_within_its_budget_is_not_planned_again() -> None:
    check = AllocatorCheck(CUDA, budget_bytes=100, planned_bytes=90)
    for done in (False, False, True):
        check.note(100)
        assert check.within_bytes is None
        assert check.done is done


def test_the_rest_is_taken_off() -> None:
    """A quarter more is left than was seen, and half as much again with each try."""
    check = AllocatorCheck(CUDA, budget_bytes=100, planned_bytes=90)
    check.note(102)
    assert check.within_bytes == 100 - 12 * 5 // 4
    check.planned_again(86)
    check.note(90)
    check.note(104)
    assert check.within_bytes == 100 - 18 * 7 // 4
    check.planned_again(65)
    for _ in range(3):
        check.note(80)
    assert check.done


def test_giving_up_is_said() -> None:
    check = AllocatorCheck(CUDA, budget_bytes=100, planned_bytes=90)
    for planned in (90, 90, 90):
        check.note(105)
        check.planned_again(planned)
    with pytest.warns(UserWarning, match="105 B by the allocator's count.*expandable_segments"):
        check.note(105)
    assert check.done
    assert check.within_bytes is None


@dataclass(eq=False)
class Counted(AllocatorCheck):
    """Takes the plan's own peak for what was measured, and a rest that is always there."""

    rest: int = 0

    def begins(self, watch: Watch) -> None:
        if not self.done:
            watch.backward_ran = lambda: self.note(self.planned_bytes + self.rest)


@dataclass
class Checked(Backend):
    """Checks on the CPU, too."""

    rest: int = 0

    def _allocator_check(self, *arguments: Any) -> AllocatorCheck:
        plan = arguments[-1].plan
        return Counted(torch.device("cpu"), plan.budget_bytes, plan.peak_bytes, rest=self.rest)


def blocks() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(32, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 32)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("tight", [False, True])
def test_a_step_is_planned_again(*, tight: bool) -> None:
    """On the CPU, with a made-up rest: bits and the budget that is shown stay, the peak falls."""
    x = torch.randn(64, 32)
    reference, module = blocks(), blocks()
    probe = fxremat.optimize(blocks(), budget=1.0, cost="flops", example_inputs=x)
    floor = fxremat.floor(probe)
    budget = floor if tight else (floor + fxremat.explain(probe).baseline_peak_bytes) // 2
    options = make_options({"budget": budget, "cost": "flops", "preset": "brief"})
    backend = Checked(options, WholeStep(fullgraph=True))
    backend.rest = budget // 20
    optimized = torch.compile(module, backend=backend, fullgraph=True, dynamic=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for seed in range(5):
            seen: list[list[torch.Tensor | None]] = []
            for each, call in ((reference, reference), (module, optimized)):
                torch.manual_seed(seed)
                each.zero_grad()
                call(x).square().mean().backward()
                seen.append([p.grad for p in each.parameters()])
            assert all(a is not None and torch.equal(a, b) for a, b in zip(*seen, strict=True))
    (graph,) = backend.history.graphs
    assert graph.plan.budget_bytes == budget
    given_up = [each for each in said if "by the allocator's count" in str(each.message)]
    if tight:
        assert len(given_up) == 1
    else:
        assert not given_up
        assert graph.plan.peak_bytes + backend.rest <= budget
