"""TRL: the forward that its trainers set is planned, with adapters and a reference model, too."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import fxremat
from fxremat.frontend.compiled import compiled_of
from tests.integrations.training import assert_same, left_by, measured_steps

trl = pytest.importorskip("trl")
pytest.importorskip("peft")

from examples import trl_finetuning  # noqa: E402
from fxremat.integrations.transformers import MemoryBudgetCallback  # noqa: E402

QUICK = {"cost": "flops", "preset": "brief"}


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's kernel takes a tile for 32,768 words, however few there are."""
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", 128)


def make_model() -> Any:
    return trl_finetuning.make_model(layers=1, width=32)


def train(make: Any, model: Any, folder: Path, callbacks: list[Any], **options: Any) -> Any:
    """Four steps: recorded, planned, run, measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", fxremat.UnplannedStepWarning)
        trainer = make(model, str(folder), callbacks, max_steps=4, **options)
        torch.manual_seed(2)
        trainer.train()
    return trainer


def check(optimized: Any, peaks: list[int]) -> None:
    """It ran by one plan for its graphs, within the budget, and nothing was compiled again."""
    assert {g.calls.count for g in compiled_of(optimized).backend.history.graphs} == {4}
    step = fxremat.explain_step(optimized)
    assert step.planned_peak_bytes <= step.budget_bytes < step.baseline_peak_bytes
    (peak,) = peaks
    assert peak <= step.budget_bytes


def test_an_optimized_model_is_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under accelerate's bf16, which wraps what TRL has set."""
    make = trl_finetuning.make_sft
    expected = left_by(train(make, make_model(), tmp_path, [], bf16=True).model)
    peaks = measured_steps(monkeypatch, after=3)
    optimized = fxremat.optimize(make_model(), budget=0.8, **QUICK)
    trainer = train(make, optimized, tmp_path, [], bf16=True)
    assert_same(left_by(trainer.model), expected)
    check(optimized, peaks)


def test_adapters_learn_preferences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the callback, with layers that TRL would checkpoint but in calls of the reference."""
    make = trl_finetuning.make_dpo
    expected = left_by(train(make, make_model(), tmp_path, []).model)
    peaks = measured_steps(monkeypatch, after=3)
    budget = MemoryBudgetCallback(0.8, **QUICK)
    trainer = train(make, make_model(), tmp_path, [budget], activation_checkpointing=True)
    assert_same(left_by(trainer.model), expected)
    check(budget.optimized, peaks)
