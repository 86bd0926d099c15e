"""A GAN: two backwards a step, the second one through both networks, a budget for each network.

    python examples/gan.py

The generator's forward waits while the discriminator is trained, so both budgets are in use at
once: a step takes at most their sum. The discriminator judges real and made rows before its
backward; its budget is for both calls, from the third step on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

import fxremat

NOISE, WIDTH, FEATURES, ROWS = 16, 64, 32, 256


def perceptron(inputs: int, outputs: int) -> nn.Module:
    """Five layers, with dropout."""
    layers: list[nn.Module] = [nn.Linear(inputs, WIDTH)]
    for _ in range(3):
        layers += [nn.GELU(), nn.Dropout(0.1), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)]
    return nn.Sequential(*layers, nn.GELU(), nn.Linear(WIDTH, outputs))


Batch = tuple[torch.Tensor, torch.Tensor]


def batches(count: int) -> list[Batch]:
    """Real rows, and noise to make others of."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(ROWS, FEATURES, generator=generator),
            torch.randn(ROWS, NOISE, generator=generator),
        )
        for _ in range(count)
    ]


def train(makes: nn.Module, judges: nn.Module, data: Iterable[Batch]) -> Iterator[None]:
    """One step of each network a batch."""
    of_maker = torch.optim.SGD(makes.parameters(), lr=0.1)
    of_judge = torch.optim.SGD(judges.parameters(), lr=0.1)
    for real, noise in data:
        made = makes(noise)
        loss = F.softplus(-judges(real)).mean() + F.softplus(judges(made.detach())).mean()
        loss.backward()
        of_judge.step()
        of_judge.zero_grad()
        # The judge's parameters get gradients here, too, which nobody uses.
        F.softplus(-judges(made)).mean().backward()
        of_maker.step()
        of_maker.zero_grad()
        of_judge.zero_grad()
        del made, loss
        yield


def main() -> None:
    makes = fxremat.optimize(perceptron(NOISE, FEATURES), budget=0.75)
    judges = fxremat.optimize(perceptron(FEATURES, 1), budget=0.75)
    for _ in train(makes, judges, batches(6)):
        pass
    print(fxremat.explain(makes))
    print(fxremat.explain_step(judges))


if __name__ == "__main__":
    main()
