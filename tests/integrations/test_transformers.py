"""Hugging Face's Trainer: one more line, the same parameters to the bit."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

import fxremat
from fxremat.frontend.compiled import compiled_of

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")


def gpt2() -> Any:
    transformers.set_seed(0)
    config = transformers.GPT2Config(
        n_layer=2,
        n_embd=64,
        n_head=2,
        vocab_size=128,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=1,
    )
    return transformers.GPT2LMHeadModel(config)


def train(model: Any, folder: Path, **options: Any) -> Any:
    """Two epochs of 22 texts in batches of 4, so that the last batch has 2."""
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(2, 128, (32,), generator=generator) for _ in range(22)]
    data = [{"input_ids": text, "labels": text} for text in texts]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_grad_norm=0.5,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=1,
        **options,
    )
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data[:6]
    )
    trainer.train()
    return trainer


def test_trainer_ends_with_the_same_parameters(tmp_path: Path) -> None:
    baseline, model = gpt2(), gpt2()
    train(baseline, tmp_path / "baseline")
    optimized = fxremat.optimize(model, budget=0.5, effort=0.05)
    train(optimized, tmp_path / "optimized")
    for (name, ours), theirs in zip(
        optimized.named_parameters(), baseline.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    whole, last = compiled_of(optimized).backend.history.graphs
    assert whole.plan.budget_bytes == whole.plan.baseline_peak_bytes // 2
    assert len(whole.plan.schedule) > len(whole.plan.problem.ops), "nothing is recomputed"
    assert last.plan.budget_bytes == whole.plan.budget_bytes
    loaded = transformers.GPT2LMHeadModel.from_pretrained(
        next((tmp_path / "optimized").glob("checkpoint-*"))
    )
    assert loaded.state_dict().keys() == baseline.state_dict().keys()


def test_mixed_precision_trains_by_the_plan(tmp_path: Path) -> None:
    optimized = fxremat.optimize(gpt2(), budget=0.5, effort=0.05)
    trainer = train(optimized, tmp_path, bf16=True)
    # Accelerate wraps `forward`, and takes its wrapping away again.
    trainer.accelerator.unwrap_model(optimized, keep_fp32_wrapper=False)
    steps = compiled_of(optimized).backend.steps
    begun = steps.count
    ids = torch.randint(2, 128, (4, 32))
    optimized(input_ids=ids, labels=ids).loss.backward()
    assert begun == 2 * 6
    assert steps.count == begun + 1


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
    counters.clear()
    found = optimized.generate(prompt, **arguments)
    assert torch.equal(found, model.generate(prompt, **arguments))
    assert not counters["frames"], "Dynamo compiled something"
    assert not compiled_of(optimized).backend.history.graphs
