"""An image classifier, trained as timm's script does: mixup, EMA, bfloat16, channels_last.

    python examples/timm_style.py

One line is fxremat's. The average of the weights is a deep copy of the optimized model, which is
an optimized model of its own; where it is evaluated, without gradients, it runs as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

import fxremat

CLASSES, SIDE, WIDTH, PICTURES = 10, 32, 32, 16


class Hybrid(nn.Module):
    """A stem of convolutions and BatchNorm, then transformer blocks over the places."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.GELU(),
            nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.GELU(),
        )
        self.places = nn.Parameter(0.02 * torch.randn(1, (SIDE // 4) ** 2, WIDTH))
        block = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(pictures).flatten(2).transpose(1, 2) + self.places
        return self.head(self.blocks(tokens).mean(1))


class Average(nn.Module):
    """The exponential moving average of a model's weights, as timm's ModelEmaV3 keeps it."""

    def __init__(self, model: nn.Module, decay: float = 0.9) -> None:
        super().__init__()
        self.module = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for ours, theirs in zip(
            self.module.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if ours.is_floating_point():
                ours.lerp_(theirs, 1 - self.decay)
            else:
                ours.copy_(theirs)


Batch = tuple[torch.Tensor, torch.Tensor]


def batches(count: int) -> list[Batch]:
    """Pictures and classes; every fourth batch is smaller, as an epoch's last one is."""
    generator = torch.Generator().manual_seed(0)
    sizes = [PICTURES // 2 if number % 4 == 3 else PICTURES for number in range(count)]
    return [
        (
            torch.randn(size, 3, SIDE, SIDE, generator=generator).contiguous(
                memory_format=torch.channels_last
            ),
            torch.randint(CLASSES, (size,), generator=generator),
        )
        for size in sizes
    ]


def mixed(batch: Batch) -> Batch:
    """Mixup: each picture and its label with another's."""
    pictures, classes = batch
    share = float(torch.distributions.Beta(0.8, 0.8).sample())
    labels = F.one_hot(classes, CLASSES).float()
    return pictures.lerp(pictures.flip(0), share), labels.lerp(labels.flip(0), share)


def train(model: nn.Module, average: Average, data: Iterable[Batch]) -> Iterator[None]:
    """One step a batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for pictures, labels in data:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pictures)
            loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)
        yield


def main() -> None:
    model = Hybrid().to(memory_format=torch.channels_last)
    model = fxremat.optimize(model, budget=0.7)
    average = Average(model)
    for _ in train(model, average, map(mixed, batches(4))):
        pass
    with torch.no_grad():
        print(average.module(batches(1)[0][0]).softmax(-1).amax(-1))
    print(fxremat.explain(model))


if __name__ == "__main__":
    main()
