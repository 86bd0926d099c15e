"""TRL's SFTTrainer and DPOTrainer within a memory budget: one callback.

    python examples/trl_finetuning.py

TRL replaces the model's forward by one that computes the loss in chunks. Its kernel runs
uncompiled, so that the step is several graphs: they are planned together from the second step on,
and what the kernel holds is counted.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import fxremat
from fxremat.integrations.transformers import MemoryBudgetCallback

WORDS = 64


def make_model(layers: int = 2, width: int = 128) -> LlamaForCausalLM:
    """A small language model with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        attention_dropout=0.1,
        eos_token_id=WORDS - 1,
    )
    return LlamaForCausalLM(config)


def make_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{number}": number for number in range(WORDS - 2)}
    words |= {"<pad>": WORDS - 2, "<eos>": WORDS - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def make_texts(*columns: str, count: int = 16, length: int = 24) -> Dataset:
    """Random texts, all of one length."""
    generator = torch.Generator().manual_seed(0)

    def text() -> str:
        words = torch.randint(WORDS - 2, (length,), generator=generator)
        return "".join(f"w{word} " for word in words.tolist())

    return Dataset.from_list([{column: text() for column in columns} for _ in range(count)])


def arguments(folder: str, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        # The plan says what is recomputed.
        "gradient_checkpointing": False,
        **more,
    }


def make_sft(model: LlamaForCausalLM, folder: str, callbacks: list[Any], **more: Any) -> SFTTrainer:
    """Fine-tuning on texts."""
    return SFTTrainer(
        model=model,
        args=SFTConfig(**arguments(folder, **more)),
        train_dataset=make_texts("text"),
        processing_class=make_tokenizer(),
        callbacks=callbacks,
    )


def make_dpo(model: LlamaForCausalLM, folder: str, callbacks: list[Any], **more: Any) -> DPOTrainer:
    """Adapters that learn preferences; without them the base is the reference."""
    return DPOTrainer(
        model=model,
        args=DPOConfig(**arguments(folder, **more)),
        train_dataset=make_texts("prompt", "chosen", "rejected"),
        processing_class=make_tokenizer(),
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
        callbacks=callbacks,
    )


def main() -> None:
    for make in (make_sft, make_dpo):
        budget = MemoryBudgetCallback(0.95)  # or bytes: "6GiB"
        with tempfile.TemporaryDirectory() as folder:
            make(make_model(), folder, [budget], max_steps=3).train()
        print(fxremat.explain_step(budget.optimized))


if __name__ == "__main__":
    main()
