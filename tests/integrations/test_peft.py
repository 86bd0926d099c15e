"""PEFT: adapters on a frozen base train by the plan, whichever of the two is optimized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fxremat
from fxremat.frontend.compiled import compiled_of
from tests.integrations.training import assert_same, left_by

peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

from examples import peft_lora  # noqa: E402


def make_base() -> Any:
    return peft_lora.make_base(layers=1)


def quickly(model: Any) -> Any:
    return fxremat.optimize(model, budget=0.6, cost="flops", preset="brief", fullgraph=True)


def around() -> tuple[Any, Any]:
    model = quickly(peft_lora.with_adapters(make_base()))
    return model, model


def inside() -> tuple[Any, Any]:
    base = quickly(make_base())
    return peft_lora.with_adapters(base), base


@pytest.mark.parametrize("make", [around, inside])
def test_adapters_end_with_the_same_bits(
    make: Callable[[], tuple[Any, Any]], tmp_path: Path
) -> None:
    untouched = peft_lora.with_adapters(make_base())
    peft_lora.train(untouched)
    expected = left_by(untouched)
    model, optimized = make()
    peft_lora.train(model)
    assert_same(left_by(model), expected)

    (graph,) = compiled_of(optimized).backend.history.graphs
    assert compiled_of(optimized).backend.steps.count == 3
    assert len(graph.plan.schedule) > len(graph.plan.problem.ops)
    ids = torch.randint(64, (4, 32))
    peak = fxremat.measure_peak(lambda: model(input_ids=ids, labels=ids).loss.backward())
    assert peak.peak_bytes <= graph.plan.budget_bytes

    model.save_pretrained(str(tmp_path))
    loaded = peft.PeftModel.from_pretrained(make_base(), str(tmp_path))
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    with torch.no_grad(), model.eval().disable_adapter():
        without = model(input_ids=ids).logits
    assert torch.equal(without, make_base().eval()(input_ids=ids).logits)
