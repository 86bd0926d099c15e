"""Direct preference optimization: two forwards of a policy, and a frozen reference beside it.

    python examples/preference.py

The reference runs under `no_grad`, so nothing of it is planned. The policy is called twice a step:
two forwards wait for one backward, and the budget is for both.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

import fxremat

WORDS, WIDTH, LENGTH, PAIRS = 64, 32, 24, 8


class Policy(nn.Module):
    """A causal language model; returns the log-probability of each text."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        block = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.1, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1] - 1)
        hidden = self.blocks(self.words(ids[:, :-1]), mask=mask, is_causal=True)
        return -F.cross_entropy(
            self.head(hidden).transpose(1, 2), ids[:, 1:], reduction="none"
        ).sum(-1)


def loss_of(
    policy: nn.Module, reference: nn.Module, chosen: torch.Tensor, rejected: torch.Tensor
) -> torch.Tensor:
    """How much more than the reference the policy prefers what was chosen (Rafailov, 2023)."""
    with torch.no_grad():
        known = reference(chosen) - reference(rejected)
    return -F.logsigmoid(0.1 * (policy(chosen) - policy(rejected) - known)).mean()


def batches(count: int) -> list[torch.Tensor]:
    """Pairs of texts: what was chosen, and what was rejected."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(WORDS, (2, PAIRS, LENGTH), generator=generator) for _ in range(count)]


def train(policy: nn.Module, reference: nn.Module, data: Iterable[torch.Tensor]) -> Iterator[None]:
    """One step a batch."""
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    for chosen, rejected in data:
        loss_of(policy, reference, chosen, rejected).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield


def main() -> None:
    policy = Policy()
    reference = copy.deepcopy(policy).requires_grad_(requires_grad=False).eval()
    policy = fxremat.optimize(policy, budget=0.7)
    for _ in train(policy, reference, batches(4)):
        pass
    print(fxremat.explain_step(policy))


if __name__ == "__main__":
    main()
