"""Mamba, a stack of selective state-space blocks; the scan is unrolled over the sequence."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, pretrained, tokens
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {"layers": 2, "width": 16, "state": 4, "vocabulary": 64, "batch": 2, "length": 8},
    "bench": {"layers": 4, "width": 192, "state": 16, "vocabulary": 512, "batch": 4, "length": 64},
    "cuda": {
        "layers": 8,
        "width": 768,
        "state": 16,
        "vocabulary": 50280,
        "batch": 8,
        "length": 128,
    },
}


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def build(n: Mapping[str, int]) -> Workload:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=n["vocabulary"],
        hidden_size=n["width"],
        num_hidden_layers=n["layers"],
        state_size=n["state"],
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        use_cache=False,
        use_mambapy=False,
    )

    def sample(generator: Generator) -> Batch:
        return (tokens(generator, n["batch"], n["length"], n["vocabulary"]),)

    model = pretrained(MambaForCausalLM, config)
    return Workload(model, sample, loss, Containers(("backbone.layers",)))


CASES = (Case("mamba", "transformers MambaForCausalLM", SIZES, build),)
