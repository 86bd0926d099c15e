"""T5, an encoder and a decoder whose layers share the position biases; dropout on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, pretrained, tokens
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {
        "layers": 2,
        "width": 32,
        "heads": 2,
        "vocabulary": 64,
        "batch": 2,
        "length": 16,
        "target_length": 8,
    },
    "bench": {
        "layers": 4,
        "width": 256,
        "heads": 8,
        "vocabulary": 1024,
        "batch": 4,
        "length": 256,
        "target_length": 128,
    },
    "cuda": {
        "layers": 12,
        "width": 768,
        "heads": 12,
        "vocabulary": 32128,
        "batch": 16,
        "length": 1024,
        "target_length": 256,
    },
}


def loss(model: nn.Module, ids: Tensor, targets: Tensor) -> Tensor:
    return model(input_ids=ids, labels=targets, use_cache=False).loss


def carry(args: tuple[Any, ...], out: Any) -> tuple[Any, ...]:
    """A layer returns its hidden states and the two position biases, which the next one takes."""
    hidden, bias, cross_bias = out
    return (hidden, args[1], bias, args[3], args[4], cross_bias, *args[6:])


def build(n: Mapping[str, int]) -> Workload:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=n["vocabulary"],
        d_model=n["width"],
        d_kv=n["width"] // n["heads"],
        d_ff=4 * n["width"],
        num_layers=n["layers"],
        num_heads=n["heads"],
        decoder_start_token_id=0,
        use_cache=False,
    )

    def sample(generator: Generator) -> Batch:
        ids = tokens(generator, n["batch"], n["length"], n["vocabulary"])
        targets = tokens(generator, n["batch"], n["target_length"], n["vocabulary"])
        return ids, targets

    model = pretrained(T5ForConditionalGeneration, config, "eager")
    return Workload(model, sample, loss, Containers(("encoder.block", "decoder.block"), carry))


CASES = (Case("t5", "transformers T5ForConditionalGeneration", SIZES, build),)
