"""A two-tower retrieval model: tied embeddings, two outputs, one of them used twice in the loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, tokens
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {"layers": 2, "width": 16, "vocabulary": 64, "batch": 4, "length": 8},
    "bench": {"layers": 4, "width": 256, "vocabulary": 2048, "batch": 64, "length": 64},
    "cuda": {"layers": 8, "width": 1024, "vocabulary": 50000, "batch": 512, "length": 128},
}


class Block(nn.Module):
    """A residual MLP block on every token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.up(self.norm(x)))
        return x + self.dropout(self.down(hidden))


class Tower(nn.Module):
    """Embeds tokens, runs the blocks and takes the mean over the tokens."""

    def __init__(self, embedding: nn.Embedding, layers: int, width: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))

    def forward(self, ids: Tensor) -> Tensor:
        return self.blocks(self.embedding(ids)).mean(1)


class TwoTower(nn.Module):
    """Both towers and the query's token head share one embedding matrix."""

    def __init__(self, layers: int, width: int, vocabulary: int) -> None:
        super().__init__()
        embedding = nn.Embedding(vocabulary, width)
        self.query = Tower(embedding, layers, width)
        self.document = Tower(embedding, layers, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = embedding.weight

    def forward(self, queries: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
        q, d = self.query(queries), self.document(documents)
        return q @ d.T, self.head(q)


def loss(model: nn.Module, queries: Tensor, documents: Tensor) -> Tensor:
    scores, logits = model(queries, documents)
    match = torch.arange(queries.shape[0], device=queries.device)
    contrast = nn.functional.cross_entropy(scores, match)
    return contrast + 0.1 * nn.functional.cross_entropy(logits, queries[:, 0])


def build(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        queries = tokens(generator, n["batch"], n["length"], n["vocabulary"])
        return queries, tokens(generator, n["batch"], n["length"], n["vocabulary"])

    model = TwoTower(n["layers"], n["width"], n["vocabulary"])
    return Workload(model, sample, loss, Containers(("query.blocks", "document.blocks")))


CASES = (Case("two-tower", "benchmarks.zoo.two_tower (tied embeddings)", SIZES, build),)
