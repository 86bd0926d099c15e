"""GPT-2, a decoder with dropout; language modelling on random tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, pretrained, tokens
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {"layers": 2, "width": 32, "heads": 2, "vocabulary": 64, "batch": 2, "length": 16},
    "bench": {"layers": 6, "width": 256, "heads": 8, "vocabulary": 1024, "batch": 4, "length": 256},
    "quick": {"layers": 6, "width": 256, "heads": 8, "vocabulary": 1024, "batch": 2, "length": 256},
    "cuda": {
        "layers": 24,
        "width": 1024,
        "heads": 16,
        "vocabulary": 50257,
        "batch": 8,
        "length": 1024,
    },
}


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def build(n: Mapping[str, int], attention: str) -> Workload:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=n["vocabulary"],
        n_positions=n["length"],
        n_embd=n["width"],
        n_layer=n["layers"],
        n_head=n["heads"],
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )

    def sample(generator: Generator) -> Batch:
        return (tokens(generator, n["batch"], n["length"], n["vocabulary"]),)

    model = pretrained(GPT2LMHeadModel, config, attention)
    # The loss is looked up by the class's name, GPT2LMHeadModel isn't known, and the warning about
    # it breaks the graph.
    model.loss_type = "ForCausalLM"
    return Workload(model, sample, loss, Containers(("transformer.h",)))


CASES = tuple(
    Case(
        f"gpt2-{attention}",
        "transformers GPT2LMHeadModel",
        SIZES,
        partial(build, attention=attention),
    )
    for attention in ("eager", "sdpa")
)
