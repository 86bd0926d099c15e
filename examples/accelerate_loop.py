"""A loop of one's own under Hugging Face's accelerate: bf16, accumulation, clipping, a budget.

    python examples/accelerate_loop.py

`prepare` takes what `fxremat.optimize` returned; what it casts is inside of the plan. accelerate's
own list of compilers is closed, so `TorchDynamoPlugin(backend="fxremat")` is an error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

import fxremat


def make_model(layers: int = 2) -> nn.Module:
    """A small language model with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        attention_dropout=0.1,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def within(budget: float | str) -> Callable[[nn.Module], nn.Module]:
    """The whole model is compiled and planned."""
    return lambda model: fxremat.optimize(model, budget=budget)


def block_by_block(budget: float | str) -> Callable[[nn.Module], nn.Module]:
    """Its repeated blocks are compiled once for all, and planned together under one budget.

    As accelerate's `use_regional_compilation` does it, whose list of compilers is closed.
    """
    return lambda model: fxremat.optimize(model, budget=budget, regions="blocks")


def train(
    optimize: Callable[[nn.Module], nn.Module], precision: str = "bf16", layers: int = 2
) -> nn.Module:
    """Four steps of two batches each."""
    accelerator = Accelerator(mixed_precision=precision, gradient_accumulation_steps=2, cpu=True)
    model = optimize(make_model(layers))
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(64, (32, 32), generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, optimizer, batches = accelerator.prepare(model, optimizer, DataLoader(texts, 4))
    torch.manual_seed(1)
    for batch in batches:
        with accelerator.accumulate(model):
            accelerator.backward(model(input_ids=batch, labels=batch).loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
    return model


def main() -> None:
    print(fxremat.explain(train(within(0.7))))  # or bytes: "6GiB"
    print(fxremat.explain_step(train(block_by_block(0.8))))


if __name__ == "__main__":
    main()
