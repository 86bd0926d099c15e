"""DETR-style detection: scipy matches slots with objects between the model and its loss.

    python examples/set_prediction.py

`fxremat.optimize` is given the function of the whole loss. Dynamo can't trace scipy, so the step is
several graphs: they are planned together from the second step on, and what runs between is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional as F

import fxremat

CLASSES, SLOTS, OBJECTS, PICTURES, SIDE, WIDTH = 4, 8, 3, 4, 32, 24


class Detector(nn.Module):
    """Slots that attend to a map of the picture; each names a class and a box."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Sequential(
            nn.Conv2d(3, WIDTH, 5, stride=2, padding=2),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
        )
        self.slots = nn.Parameter(torch.randn(SLOTS, WIDTH))
        layer = nn.TransformerDecoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.1, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.heads = nn.Linear(WIDTH, CLASSES + 1 + 4)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        places = self.map(pictures).flatten(2).transpose(1, 2)
        slots = self.decoder(self.slots.expand(len(pictures), -1, -1), places)
        named, placed = self.heads(slots).split([CLASSES + 1, 4], dim=-1)
        return named, placed.sigmoid()


def matched(costs: torch.Tensor) -> list[torch.Tensor]:
    """The slot of each object, picture by picture, in the cheapest assignment."""
    # Transposed, so that scipy's columns are the slots of the objects in their order.
    found = [linear_sum_assignment(cost.T)[1] for cost in costs.detach().numpy()]
    return [torch.from_numpy(slots) for slots in found]


def loss_of(
    model: nn.Module, pictures: torch.Tensor, classes: torch.Tensor, boxes: torch.Tensor
) -> torch.Tensor:
    named, placed = model(pictures)
    likely = torch.gather(named.softmax(-1), 2, classes[:, None].expand(-1, SLOTS, -1))
    slots = torch.stack(matched(torch.cdist(placed, boxes, p=1) - likely))
    targets = torch.full(named.shape[:2], CLASSES).scatter(1, slots, classes)
    found = torch.gather(placed, 1, slots[..., None].expand(-1, -1, 4))
    return F.cross_entropy(named.transpose(1, 2), targets) + F.l1_loss(found, boxes)


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def batches(count: int) -> list[Batch]:
    """Pictures, and the classes and boxes of their objects."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(PICTURES, 3, SIDE, SIDE, generator=generator),
            torch.randint(CLASSES, (PICTURES, OBJECTS), generator=generator),
            torch.rand(PICTURES, OBJECTS, 4, generator=generator),
        )
        for _ in range(count)
    ]


def train(
    model: nn.Module, loss: Callable[..., torch.Tensor], data: Iterable[Batch]
) -> Iterator[None]:
    """One step a batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for pictures, classes, boxes in data:
        loss(model, pictures, classes, boxes).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield


def main() -> None:
    model = Detector()
    loss = fxremat.optimize(loss_of, budget=0.7)
    for _ in train(model, loss, batches(4)):
        pass
    print(fxremat.explain_step(loss))


if __name__ == "__main__":
    main()
