"""BERT, an encoder with dropout; masked language modelling on random tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, pretrained, tokens
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {"layers": 2, "width": 32, "heads": 2, "vocabulary": 64, "batch": 2, "length": 16},
    "bench": {"layers": 6, "width": 256, "heads": 8, "vocabulary": 1024, "batch": 4, "length": 256},
    "cuda": {
        "layers": 24,
        "width": 1024,
        "heads": 16,
        "vocabulary": 30522,
        "batch": 32,
        "length": 512,
    },
}


def loss(model: nn.Module, ids: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
    return model(input_ids=ids, attention_mask=mask, labels=targets).loss


def build(n: Mapping[str, int], attention: str) -> Workload:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=n["vocabulary"],
        hidden_size=n["width"],
        num_hidden_layers=n["layers"],
        num_attention_heads=n["heads"],
        intermediate_size=4 * n["width"],
        max_position_embeddings=n["length"],
    )

    def sample(generator: Generator) -> Batch:
        ids = tokens(generator, n["batch"], n["length"], n["vocabulary"])
        mask = torch.ones_like(ids)
        mask[0, -n["length"] // 4 :] = 0  # one sequence is padded, so that the mask is a real one
        targets = torch.where(torch.rand(ids.shape, generator=generator) < 0.15, ids, -100)
        return ids, mask, targets

    model = pretrained(BertForMaskedLM, config, attention)
    return Workload(model, sample, loss, Containers(("bert.encoder.layer",)))


CASES = tuple(
    Case(
        f"bert-{attention}",
        "transformers BertForMaskedLM",
        SIZES,
        partial(build, attention=attention),
    )
    for attention in ("eager", "sdpa")
)
