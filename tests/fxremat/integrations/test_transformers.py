"""The callback for Hugging Face's Trainer: what it refuses, and the way back."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of

pytest.importorskip("transformers")

from fxremat.integrations.transformers import MemoryBudgetCallback

X = torch.randn(4, 8)


def begin(callback: Any, model: nn.Module, **arguments: Any) -> None:
    given = SimpleNamespace(**{"torch_compile": False, "n_gpu": 0, **arguments})
    callback.on_train_begin(given, None, None, model=model)


def end(callback: Any, model: nn.Module) -> None:
    callback.on_train_end(None, None, None, model=model)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "fxremat.integrations.transformers")
    with pytest.raises(fxremat.MissingPackageError, match="pip install transformers"):
        importlib.import_module("fxremat.integrations.transformers")


def test_bad_options_are_refused_at_once() -> None:
    with pytest.raises(fxremat.BudgetError):
        MemoryBudgetCallback("six")
    with pytest.raises(fxremat.OptionError, match="'solvr'"):
        MemoryBudgetCallback(0.5, solvr="auto")
    MemoryBudgetCallback(fxremat.StepBudget(0.5), regions="blocks", fullgraph=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"torch_compile": True}, "leave it out"), ({"n_gpu": 2}, "one process a GPU")],
)
def test_what_would_run_no_plan_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(fxremat.OptionError, match=message):
        begin(MemoryBudgetCallback(0.5), nn.Linear(8, 8), **arguments)


def test_one_budget_is_enough() -> None:
    optimized = fxremat.optimize(nn.Linear(8, 8), budget=1.0)
    with pytest.raises(fxremat.OptionError, match="leave out one of the two"):
        begin(MemoryBudgetCallback(0.5), optimized)


def test_the_model_has_its_forward_back() -> None:
    callback = MemoryBudgetCallback(1.0, cost="flops")
    model = nn.Linear(8, 8)
    plain = model.forward
    wrapped = model.forward = lambda x: plain(x) * 2  # as accelerate sets one
    begin(callback, model)
    model(X).sum().backward()
    steps = compiled_of(callback.optimized).backend.steps
    assert steps.count == 1
    # A training that ended by an error goes on by the same plans.
    begin(callback, model)
    model(X).sum().backward()
    assert steps.count == 2
    end(callback, model)
    assert model.forward is wrapped
    model(X).sum().backward()
    assert steps.count == 2
    del model.forward
    begin(callback, model)
    end(callback, model)
    assert "forward" not in vars(model)


def test_a_forward_that_was_set_meanwhile_stays() -> None:
    callback, model = MemoryBudgetCallback(1.0), nn.Linear(8, 8)
    begin(callback, model)
    later = model.forward = lambda x: x
    end(callback, model)
    assert model.forward is later
