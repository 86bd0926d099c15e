"""The examples: bit for bit as without a budget, and measured within it once they are planned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from examples import many_forwards, preference, set_prediction
from fxremat.frontend.compiled import compiled_of
from tests.examples.runs import assert_same, peak, states

# Recorded, planned, checked; what comes after is measured.
STEPS, MEASURED = 4, 2
# A share of what the same steps take without fxremat.
SHARE = 0.75
QUICK = {"effort": 0.05, "cost": "flops"}

Run = Callable[[nn.Module, Any], Iterator[None]]


def compare(
    module: nn.Module,
    run: Run,
    optimized: Callable[[nn.Module, int], Any] | None = None,
    share: float = SHARE,
) -> Any:
    """Train a module and its twin under a budget; what was optimized.

    `run` is given the module and what is called in its place. `optimized` makes that of the module
    and the budget.
    """
    optimized = optimized or (lambda m, nbytes: fxremat.optimize(m, budget=nbytes, **QUICK))
    own = copy.deepcopy(module)
    baseline = run(module, module)
    expected = states(baseline, module, STEPS)
    budget = int(share * peak(baseline, MEASURED))
    call = optimized(own, budget)
    planned = run(own, call)
    assert_same(expected, states(planned, own, STEPS))
    assert peak(planned, MEASURED) <= budget
    return call


@pytest.mark.parametrize(
    "backward", [many_forwards.siamese, many_forwards.summed, many_forwards.retained]
)
def test_many_forwards(backward: many_forwards.Backward) -> None:
    data = many_forwards.batches(STEPS + MEASURED)
    call = compare(
        many_forwards.Encoder(), lambda _, call: many_forwards.train(call, data, backward)
    )
    assert len(fxremat.explain_step(call).calls) == {"siamese": 2, "summed": 4, "retained": 1}[
        backward.__name__
    ]


def test_preference() -> None:
    policy = preference.Policy()
    reference = copy.deepcopy(policy).requires_grad_(requires_grad=False).eval()
    data = preference.batches(STEPS + MEASURED)
    call = compare(policy, lambda _, call: preference.train(call, reference, data))
    assert len(fxremat.explain_step(call).calls) == 2


def test_set_prediction() -> None:
    data = set_prediction.batches(STEPS + MEASURED)

    def optimized(module: nn.Module, nbytes: int) -> Any:
        return fxremat.optimize(set_prediction.loss_of, budget=nbytes, **QUICK)

    def run(module: nn.Module, call: Any) -> Iterator[None]:
        loss = set_prediction.loss_of if call is module else call
        return set_prediction.train(module, loss, data)

    call = compare(set_prediction.Detector(), run, optimized)
    assert compiled_of(call).backend.tracker is not None
