"""Llama, a decoder with RMS norms, rotary positions and a gated MLP; no dropout, as published."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, pretrained, tokens
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {"layers": 2, "width": 32, "heads": 2, "vocabulary": 64, "batch": 2, "length": 16},
    "bench": {"layers": 6, "width": 256, "heads": 8, "vocabulary": 1024, "batch": 4, "length": 256},
    "cuda": {
        "layers": 16,
        "width": 2048,
        "heads": 32,
        "vocabulary": 32000,
        "batch": 4,
        "length": 2048,
    },
}


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def build(n: Mapping[str, int], attention: str) -> Workload:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=n["vocabulary"],
        hidden_size=n["width"],
        intermediate_size=8 * n["width"] // 3,
        num_hidden_layers=n["layers"],
        num_attention_heads=n["heads"],
        num_key_value_heads=n["heads"] // 2,
        max_position_embeddings=n["length"],
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )

    def sample(generator: Generator) -> Batch:
        return (tokens(generator, n["batch"], n["length"], n["vocabulary"]),)

    model = pretrained(LlamaForCausalLM, config, attention)
    return Workload(model, sample, loss, Containers(("model.layers",)))


CASES = tuple(
    Case(
        f"llama-{attention}",
        "transformers LlamaForCausalLM",
        SIZES,
        partial(build, attention=attention),
    )
    for attention in ("eager", "sdpa")
)
