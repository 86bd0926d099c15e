"""accelerate: what `prepare` wraps is planned with what it casts, whole or block by block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of
from tests.integrations.training import assert_same, left_by

pytest.importorskip("accelerate")
pytest.importorskip("transformers")

from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import TorchDynamoPlugin, compile_regions

from examples import accelerate_loop

Make = Callable[[nn.Module], nn.Module]


def left_after(
    make: Make, precision: str = "bf16", layers: int = 1
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The example's training, with what it leaves."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    model = accelerate_loop.train(make, precision, layers)
    return model, left_by(model)


def measured(model: nn.Module) -> int:
    """The peak of one more step."""
    ids = torch.randint(64, (4, 32))
    return fxremat.measure_peak(lambda: model(input_ids=ids, labels=ids).loss.backward()).peak_bytes


def test_a_loop_under_bf16_ends_with_the_same_bits() -> None:
    def quickly(model: nn.Module) -> nn.Module:
        return fxremat.optimize(model, budget=0.6, cost="flops", preset="brief", fullgraph=True)

    _, expected = left_after(lambda model: model)
    optimized, found = left_after(quickly)
    assert_same(found, expected)
    (graph,) = compiled_of(optimized).backend.history.graphs
    assert compiled_of(optimized).backend.steps.count == 8
    assert len(graph.plan.schedule) > len(graph.plan.problem.ops)
    assert measured(optimized) <= graph.plan.budget_bytes


def test_blocks_are_compiled_once_and_planned_together() -> None:
    _, expected = left_after(lambda model: model, "no", 2)
    optimized, found = left_after(accelerate_loop.block_by_block(0.8), "no", 2)
    assert_same(found, expected)
    step = fxremat.explain_step(optimized)
    assert step.planned_peak_bytes <= step.budget_bytes < step.baseline_peak_bytes
    assert measured(optimized) <= step.budget_bytes


def test_accelerates_own_regions_share_a_budget() -> None:
    budget = fxremat.StepBudget(0.8)

    def in_regions(model: nn.Module) -> nn.Module:
        return compile_regions(
            model, backend="fxremat", options={"budget": budget, "cost": "flops"}
        )

    _, expected = left_after(lambda model: model, "no", 2)
    compiled, found = left_after(in_regions, "no", 2)
    names = {name.replace("_orig_mod.", ""): value for name, value in found.items()}
    assert_same(names, expected)
    assert type(compiled).__name__ == "LlamaForCausalLM"


def test_accelerates_list_of_compilers_is_closed() -> None:
    """Where it is open one day, the recipe becomes shorter."""
    with pytest.raises(ValueError, match="FXREMAT"):
        TorchDynamoPlugin(backend="fxremat")


def test_accelerate_hands_options_to_inductor() -> None:
    options = fxremat.inductor_options("6GiB")
    plugin = TorchDynamoPlugin(backend="inductor", options=options)
    given = plugin.to_kwargs()
    assert given["options"]["custom_partitioner_fn"] is options["custom_partitioner_fn"]
    torch.compile(nn.Linear(2, 2), **given)  # takes them, with what else accelerate gives
