"""The examples: bit for bit as without a budget, and measured within it once they are planned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from examples import (
    gan,
    many_forwards,
    preference,
    set_prediction,
    timm_style,
    titan_style,
)
from fxremat.frontend.compiled import compiled_of
from tests.examples.runs import assert_same, peak, states

# Recorded, planned, checked; what comes after is measured.
STEPS, MEASURED = 4, 2
# A share of what the same steps take without fxremat.
SHARE = 0.75
QUICK = {"solver": "greedy", "cost": "flops"}

Run = Callable[[nn.Module, Any], Iterator[None]]


def compare(
    module: nn.Module,
    run: Run,
    optimized: Callable[[nn.Module, int], Any] | None = None,
    share: float = SHARE,
    steps: int = STEPS,
) -> Any:
    """Train a module and its twin under a budget; what was optimized.

    `run` is given the module and what is called in its place. `optimized` makes that of the module
    and the budget.
    """
    optimized = optimized or (lambda m, nbytes: fxremat.optimize(m, budget=nbytes, **QUICK))
    own = copy.deepcopy(module)
    baseline = run(module, module)
    expected = states(baseline, module, steps)
    budget = int(share * peak(baseline, MEASURED))
    call = optimized(own, budget)
    planned = run(own, call)
    assert_same(expected, states(planned, own, steps))
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
    assert (
        len(fxremat.explain_step(call).calls)
        == {"siamese": 2, "summed": 4, "retained": 1}[backward.__name__]
    )


def test_preference() -> None:
    policy = preference.Policy()
    reference = copy.deepcopy(policy).requires_grad_(requires_grad=False).eval()
    data = preference.batches(STEPS + MEASURED)
    call = compare(policy, lambda _, call: preference.train(call, reference, data))
    assert len(fxremat.explain_step(call).calls) == 2


@pytest.mark.parametrize(
    ("example", "model"),
    [(set_prediction, set_prediction.Detector), (titan_style, titan_style.build)],
    ids=["set prediction", "titan"],
)
def test_functions_of_the_whole_loss(example: Any, model: Callable[[], nn.Module]) -> None:
    data = example.batches(STEPS + MEASURED)

    def optimized(_: nn.Module, nbytes: int) -> Any:
        return fxremat.optimize(example.loss_of, budget=nbytes, **QUICK)

    def run(module: nn.Module, call: Any) -> Iterator[None]:
        return example.train(module, example.loss_of if call is module else call, data)

    call = compare(model(), run, optimized)
    breaks = compiled_of(call).backend.tracker is not None
    assert breaks == (example is set_prediction)


def test_titan_by_blocks() -> None:
    data = titan_style.batches(STEPS + MEASURED)
    budgets: list[fxremat.StepBudget] = []

    def optimized(module: Any, nbytes: int) -> titan_style.Loss:
        budgets.append(fxremat.StepBudget(nbytes))
        return titan_style.compiled_by_blocks(module, budgets[-1], **QUICK)

    def run(module: nn.Module, call: Any) -> Iterator[None]:
        return titan_style.train(module, titan_style.loss_of if call is module else call, data)

    compare(titan_style.build(), run, optimized)
    assert len(fxremat.explain_step(budgets[-1]).calls) == titan_style.LAYERS + 1


def test_gan() -> None:
    data = gan.batches(STEPS + MEASURED)
    networks = nn.ModuleList(
        [gan.perceptron(gan.NOISE, gan.FEATURES), gan.perceptron(gan.FEATURES, 1)]
    )

    def optimized(module: nn.Module, nbytes: int) -> Any:
        # Both at once take at most the sum of their budgets.
        makes, judges = nbytes * 2 // 5, nbytes * 3 // 5
        return [
            fxremat.optimize(part, budget=share, **QUICK)
            for part, share in zip(module.children(), (makes, judges), strict=True)
        ]

    call = compare(networks, lambda _, call: gan.train(*call, data), optimized)
    assert compiled_of(call[0]).backend.tracker is None
    assert {len(k.keys) for k in compiled_of(call[1]).backend.tracker.kinds} == {1, 2}


def test_gan_under_one_budget() -> None:
    data = gan.batches(STEPS + 2 + MEASURED)
    networks = nn.ModuleList(
        [gan.perceptron(gan.NOISE, gan.FEATURES), gan.perceptron(gan.FEATURES, 1)]
    )

    def optimized(module: nn.Module, nbytes: int) -> Any:
        budget = fxremat.StepBudget(nbytes)
        return [fxremat.optimize(part, budget=budget, **QUICK) for part in module.children()]

    call = compare(networks, lambda _, call: gan.train(*call, data), optimized, steps=STEPS + 2)
    assert len(fxremat.explain_step(call[0]).calls) == 4


def test_timm_style() -> None:
    data = [timm_style.mixed(batch) for batch in timm_style.batches(STEPS + MEASURED)]
    model = timm_style.Hybrid(blocks=1).to(memory_format=torch.channels_last)
    averages: list[timm_style.Average] = []

    def run(_: nn.Module, call: Any) -> Iterator[None]:
        averages.append(timm_style.Average(call))
        return timm_style.train(call, averages[-1], data)

    # Its graph as it is: AOTAutograd rounds a bfloat16 graph otherwise than eager.
    baseline = fxremat.optimize(model, budget=1.0, **QUICK)
    compare(baseline, run)
    theirs, ours = (average.module.state_dict() for average in averages)
    assert all(torch.equal(a, b) for a, b in zip(theirs.values(), ours.values(), strict=True))
