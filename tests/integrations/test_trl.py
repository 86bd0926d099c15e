"""TRL's SFTTrainer constructs; the forward that it sets is heard, and its backbone planned."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import fxremat
from fxremat.frontend.compiled import compiled_of

trl = pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config)


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    words = {f"w{i}": i for i in range(126)} | {"<pad>": 126, "<eos>": 127}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>"
    )


def trainer(model: Any, folder: Path) -> Any:
    from datasets import Dataset

    texts = [{"input_ids": torch.randint(0, 126, (16,)).tolist()} for _ in range(8)]
    config = trl.SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    return trl.SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer(),
    )


def test_a_replaced_forward_is_heard(tmp_path: Path) -> None:
    optimized = fxremat.optimize(llama(), budget=1.0)
    made = trainer(optimized, tmp_path)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        made.train()
    planned = compiled_of(optimized).backend.steps.count
    unplanned = [w for w in heard if w.category is fxremat.UnplannedStepWarning]
    # One or the other: TRL may come to call the model itself.
    assert planned or len(unplanned) == 1


def test_the_way_out_is_the_backbone(tmp_path: Path) -> None:
    model = llama()
    model.model = fxremat.optimize(model.model, budget=1.0)
    made = trainer(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", fxremat.UnplannedStepWarning)
        made.train()
    assert compiled_of(model.model).backend.steps.count == 2
