"""LoRA with Hugging Face's PEFT within a memory budget, on a frozen base.

    python examples/peft_lora.py

Optimize the PEFT model, or the base before the adapters are put into it: both train by the plan.
"""

from __future__ import annotations

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import fxremat


def make_base(layers: int = 2) -> LlamaForCausalLM:
    """A small language model with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def with_adapters(base: nn.Module) -> PeftModel:
    """Adapters on two projections of each layer; the base is frozen."""
    config = LoraConfig(
        r=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    return get_peft_model(base, config)


def train(model: nn.Module, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    torch.manual_seed(1)
    for _ in range(steps):
        ids = torch.randint(64, (4, 32), generator=generator)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    model = fxremat.optimize(with_adapters(make_base()), budget=0.7)  # or bytes: "6GiB"
    train(model)
    print(fxremat.explain(model))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # the adapters, as PEFT loads them anywhere
        PeftModel.from_pretrained(make_base(), folder)


if __name__ == "__main__":
    main()
