"""Hugging Face's Trainer within a memory budget: one callback.

    python examples/transformers_trainer.py

Everything else is as it was: accumulated and clipped gradients, evaluation, checkpoints, resuming.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import (
    DataCollatorWithPadding,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

import fxremat
from fxremat.integrations.transformers import MemoryBudgetCallback

Example = dict[str, Any]


def make_model(layers: int = 2) -> LlamaForSequenceClassification:
    """A small classifier with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        attention_dropout=0.1,
        num_labels=3,
        # Else the model sets it in its first step, and is compiled again for the second.
        problem_type="single_label_classification",
        pad_token_id=0,
    )
    return LlamaForSequenceClassification(config)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 64 words, which pads here."""
    from tokenizers import Tokenizer, models

    words = {"<pad>": 0} | {f"w{number}": number for number in range(1, 64)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")), pad_token="<pad>"
    )


def make_texts(count: int) -> list[Example]:
    """Texts of 9 to 16 words and their classes; every eighth has up to 32."""
    generator = torch.Generator().manual_seed(0)
    texts: list[Example] = []
    for number in range(count):
        length = int(torch.randint(9, 17, (), generator=generator)) * (1 + (number % 8 == 7))
        words = torch.randint(1, 64, (length,), generator=generator)
        texts.append({"input_ids": words.tolist(), "label": number % 3})
    return texts


def make_trainer(folder: str, callbacks: list[Any], layers: int = 2, **arguments: Any) -> Trainer:
    """Four steps of two batches each, in two epochs."""
    given = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.5,
        "num_train_epochs": 2,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
    }
    return Trainer(
        model=make_model(layers),
        args=TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            seed=1,
            **{**given, **arguments},
        ),
        train_dataset=make_texts(16),
        eval_dataset=make_texts(4),
        # Each length is a graph of its own: padded to a multiple there are few.
        data_collator=DataCollatorWithPadding(make_tokenizer(), pad_to_multiple_of=16),
        callbacks=callbacks,
    )


def main() -> None:
    budget = MemoryBudgetCallback(0.7)  # or bytes: "6GiB"
    with tempfile.TemporaryDirectory() as folder:
        make_trainer(folder, [budget]).train()
    print(fxremat.explain(budget.optimized))


if __name__ == "__main__":
    main()
