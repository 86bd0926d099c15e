"""A GAN: two backwards a step, the second one through both networks, a budget for each network.

    python examples/gan.py

The generator's forward waits while the discriminator is trained, so both budgets are in use at once:
a step takes at most their sum. The discriminator judges real and made pictures before its backward;
its budget is for both calls, from the second step on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

import fxremat

NOISE, WIDTH, SIDE, PICTURES = 16, 16, 16, 16


def generator() -> nn.Module:
    """Noise to pictures of 16 x 16."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(NOISE, 4 * WIDTH, 4), nn.BatchNorm2d(4 * WIDTH)]
    layers += [nn.ReLU(), nn.ConvTranspose2d(4 * WIDTH, 2 * WIDTH, 4, stride=2, padding=1)]
    layers += [nn.BatchNorm2d(2 * WIDTH), nn.ReLU()]
    layers += [nn.ConvTranspose2d(2 * WIDTH, 3, 4, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(*layers)


def discriminator() -> nn.Module:
    """Pictures to how real they look."""
    layers: list[nn.Module] = [nn.Conv2d(3, 2 * WIDTH, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    layers += [nn.Dropout(0.2), nn.Conv2d(2 * WIDTH, 4 * WIDTH, 4, stride=2, padding=1)]
    layers += [nn.LeakyReLU(0.2), nn.Dropout(0.2), nn.Conv2d(4 * WIDTH, 1, 4), nn.Flatten(0)]
    return nn.Sequential(*layers)


Batch = tuple[torch.Tensor, torch.Tensor]


def batches(count: int) -> list[Batch]:
    """Pictures, and noise to make others of."""
    random = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(PICTURES, 3, SIDE, SIDE, generator=random),
            torch.randn(PICTURES, NOISE, 1, 1, generator=random),
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
    makes = fxremat.optimize(generator(), budget=0.8)
    judges = fxremat.optimize(discriminator(), budget=0.8)
    for _ in train(makes, judges, batches(6)):
        pass
    print(fxremat.explain(makes))
    print(fxremat.explain_step(judges))


if __name__ == "__main__":
    main()
