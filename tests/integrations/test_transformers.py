"""Hugging Face's Trainer: one line or one callback more, the same parameters to the bit."""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import fxremat
from fxremat.frontend.compiled import compiled_of
from tests.integrations.training import assert_same, graphs_compiled, left_by, measured_steps

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from examples import transformers_trainer  # noqa: E402
from fxremat.integrations.transformers import MemoryBudgetCallback  # noqa: E402

# A short search by FLOPs: whatever the plan, it must be right.
QUICK = {"cost": "flops", "preset": "brief"}


def gpt2() -> Any:
    transformers.set_seed(0)
    config = transformers.GPT2Config(
        n_layer=1,
        n_embd=64,
        n_head=2,
        vocab_size=128,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=1,
    )
    return transformers.GPT2LMHeadModel(config)


def train(model: Any, folder: Path, callbacks: tuple[Any, ...] = (), **options: Any) -> Any:
    """Two epochs of 10 texts in batches of 4, so that the last batch has 2."""
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(2, 128, (32,), generator=generator) for _ in range(10)]
    data = [{"input_ids": text, "labels": text} for text in texts]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        num_train_epochs=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=1,
        **{"save_strategy": "no", **options},
    )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=data[:6],
        callbacks=list(callbacks),
    )
    trainer.train()
    return trainer


def test_trainer_ends_with_the_same_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.5,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        # Of no use beside a plan, which goes through it, and no harm.
        "activation_checkpointing": True,
    }
    baseline, model = gpt2(), gpt2()
    train(baseline, tmp_path / "baseline", **options)
    expected = left_by(baseline)
    optimized = fxremat.optimize(model, budget=0.7, **QUICK)
    peaks = measured_steps(monkeypatch)
    train(optimized, tmp_path / "optimized", **options)
    assert_same(left_by(optimized), expected)
    whole, last = compiled_of(optimized).backend.history.graphs
    assert len(whole.plan.schedule) > len(whole.plan.problem.ops), "nothing is recomputed"
    assert last.plan.budget_bytes == whole.plan.budget_bytes
    assert len(peaks) == 2 * 3 - 2
    assert max(peaks) <= whole.plan.budget_bytes
    loaded = transformers.GPT2LMHeadModel.from_pretrained(
        next((tmp_path / "optimized").glob("checkpoint-*"))
    )
    assert loaded.state_dict().keys() == baseline.state_dict().keys()


class Watch(transformers.TrainerCallback):
    """Notes what is compiled while the model is evaluated."""

    def __init__(self) -> None:
        self.compiled: list[int] = []
        self.before = 0

    def on_step_end(self, *_args: Any, **_given: Any) -> None:
        self.before = graphs_compiled()

    def on_evaluate(self, *_args: Any, **_given: Any) -> None:
        self.compiled.append(graphs_compiled() - self.before)


def test_a_callback_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accumulation, clipping, evaluation, padding, checkpointed layers; saved and resumed."""
    plain = transformers_trainer.make_trainer(str(tmp_path / "plain"), [], layers=1)
    plain.train()
    expected = left_by(plain.model)
    budget, watch = MemoryBudgetCallback(0.7, **QUICK), Watch()
    peaks = measured_steps(monkeypatch)
    folder = tmp_path / "planned"
    trainer = transformers_trainer.make_trainer(
        str(folder), [budget, watch], layers=1, activation_checkpointing=True
    )
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        trainer.train()
    assert_same(left_by(trainer.model), expected)
    assert watch.compiled == [0, 0], "something was compiled for an evaluation"
    assert "forward" not in vars(trainer.model)
    told = [str(w.message) for w in heard if "MemoryBudgetCallback" in str(w.message)]
    assert len(told) == 1
    assert told[0].startswith("gradient checkpointing is turned off")
    assert not trainer.model.is_activation_checkpointing

    graphs = compiled_of(budget.optimized).backend.history.graphs
    assert len(graphs) == 2, "batches are padded to two lengths"
    allowed = {graph.plan.budget_bytes for graph in graphs}
    assert max(len(g.plan.schedule) - len(g.plan.problem.ops) for g in graphs) > 0
    assert len(peaks) == 8 - 2
    assert max(peaks) <= max(allowed)

    again = MemoryBudgetCallback(0.7, **QUICK)
    resumed = transformers_trainer.make_trainer(str(folder), [again], layers=1)
    first = min(folder.glob("checkpoint-*"), key=lambda each: int(each.name.split("-")[1]))
    resumed.train(resume_from_checkpoint=str(first))
    assert_same(left_by(resumed.model), expected)


def test_mixed_precision_is_inside_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Under accelerate's bf16; a loss of the Trainer's own (label smoothing) is heard."""
    options = {"bf16": True, "label_smoothing_factor": 0.1, "dataloader_drop_last": True}
    baseline, optimized = gpt2(), fxremat.optimize(gpt2(), budget=0.6, fullgraph=True, **QUICK)
    train(baseline, tmp_path, **options)
    expected = left_by(baseline)
    peaks = measured_steps(monkeypatch)
    with caplog.at_level(logging.WARNING, logger="fxremat"):
        trainer = train(optimized, tmp_path, **options)
    assert_same(left_by(optimized), expected)
    assert "Gradients of the outputs (4, 32, 128) are counted, 65,536 bytes" in caplog.text
    # Accelerate wraps `forward`, and takes its wrapping away again.
    trainer.accelerator.unwrap_model(optimized, keep_fp32_wrapper=False)
    steps = compiled_of(optimized).backend.steps
    begun = steps.count
    ids = torch.randint(2, 128, (4, 32))
    optimized(input_ids=ids, labels=ids).loss.backward()
    assert (begun, steps.count) == (4, 5)
    # What the smoothed loss holds comes on top, as was said.
    whole = compiled_of(optimized).backend.history.graphs[0].plan
    assert max(peaks) <= whole.budget_bytes + 65536


def test_a_smoothed_loss_of_the_models_own_is_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def smoothed(logits: torch.Tensor, labels: torch.Tensor, **_given: Any) -> torch.Tensor:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return F.cross_entropy(logits, labels, label_smoothing=0.1)

    def with_loss() -> Any:
        model = gpt2()
        model.loss_function = smoothed
        return model

    baseline, model = with_loss(), with_loss()
    train(baseline, tmp_path, dataloader_drop_last=True)
    expected = left_by(baseline)
    budget = MemoryBudgetCallback(0.6, **QUICK)
    peaks = measured_steps(monkeypatch)
    train(model, tmp_path, (budget,), dataloader_drop_last=True)
    assert_same(left_by(model), expected)
    whole = compiled_of(budget.optimized).backend.history.graphs[0].plan
    assert whole.graph.scalar_tangents
    assert max(peaks) <= whole.budget_bytes


def test_the_forward_of_the_class_can_be_inspected() -> None:
    model = gpt2()
    optimized = fxremat.optimize(model, budget=0.5)
    expected = inspect.signature(type(model).forward)
    assert inspect.signature(type(optimized).forward) == expected
    assert inspect.signature(optimized.forward) == inspect.signature(model.forward)


def test_generate_compiles_nothing() -> None:
    model = gpt2().eval()
    optimized = fxremat.optimize(model, budget=0.5)
    prompt = torch.randint(2, 128, (1, 4))
    arguments = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    before = graphs_compiled()
    found = optimized.generate(prompt, **arguments)
    assert torch.equal(found, model.generate(prompt, **arguments))
    assert graphs_compiled() == before, "Dynamo compiled something"
    assert not compiled_of(optimized).backend.history.graphs
