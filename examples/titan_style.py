"""A Llama-style model, set up as torchtitan does: on meta, then made real, loss compiled with it.

    python examples/titan_style.py

Two ways: the model is optimized together with its loss, so that the logits, the largest tensor of
such a step, are part of one plan; or each block is compiled by itself, and the loss beside them,
under a budget that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import fxremat

WORDS, WIDTH, HEADS, LENGTH, TEXTS, LAYERS = 256, 32, 4, 32, 4, 3


def rotated(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary positions: pairs of features turned by an angle that grows with the position."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.RMSNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.before_mlp = nn.RMSNorm(WIDTH)
        self.gate = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.down = nn.Linear(3 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.before_attention(x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = heads.transpose(1, 3).unbind(2)
        q, k = rotated(q, angles), rotated(k, angles)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).flatten(2)), 0.1, self.training)
        h = self.before_mlp(x)
        return x + F.dropout(self.down(F.silu(self.gate(h)) * self.up(h)), 0.1, self.training)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.register_buffer("angles", torch.empty(LENGTH, WIDTH // HEADS // 2), persistent=False)

    def init_weights(self) -> None:
        """Give values to what was made on meta."""
        for module in self.modules():
            if isinstance(module, nn.RMSNorm):
                module.reset_parameters()
            elif isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=0.02)
        exponents = torch.arange(self.angles.shape[1]) / self.angles.shape[1]
        self.angles.copy_(torch.outer(torch.arange(LENGTH), 10_000.0**-exponents))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x, self.angles)
        return self.head(self.norm(x))


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())


Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


def loss_of(model: nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(ids), labels)


def compiled_by_blocks(model: Transformer, budget: fxremat.StepBudget, **options: Any) -> Loss:
    """Each block compiled in its place, and the loss function."""
    options = {"budget": budget, **options}
    for layer in model.layers:
        layer.compile(backend="fxremat", options=options)
    last = torch.compile(cross_entropy, backend="fxremat", options=options)
    return lambda model, ids, labels: last(model(ids), labels)


def build() -> Transformer:
    with torch.device("meta"):
        model = Transformer()
    model.to_empty(device="cpu")
    with torch.no_grad():
        model.init_weights()
    return model


Batch = tuple[torch.Tensor, torch.Tensor]


def batches(count: int) -> list[Batch]:
    """Texts, and the same ones shifted by a word."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(WORDS, (count, TEXTS, LENGTH + 1), generator=generator)
    return [(text[:, :-1].contiguous(), text[:, 1:].contiguous()) for text in texts]


def train(model: nn.Module, loss: Loss, data: Iterable[Batch]) -> Iterator[None]:
    """One step a batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for ids, labels in data:
        loss(model, ids, labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield


def main() -> None:
    model = build()
    loss = fxremat.optimize(loss_of, budget=0.6)
    for _ in train(model, loss, batches(3)):
        pass
    print(fxremat.explain(loss))

    model, budget = build(), fxremat.StepBudget(0.7)
    for _ in train(model, compiled_by_blocks(model, budget), batches(4)):
        pass
    print(fxremat.explain_step(budget))


if __name__ == "__main__":
    main()
