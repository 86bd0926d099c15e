"""Pictures: checks of what is in them, early exits, and a codebook that replaces its dead codes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from benchmarks.broken.step import BrokenStep, whole
from benchmarks.zoo import Batch, Workload
from benchmarks.zoo.case import images, labels

_CLASSES = 4
_UNLABELED = 255


def convolved(width_in: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout2d(0.1),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Two levels down, two up, with skips: a class for every pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolved(3, width)
        self.second = convolved(width, 2 * width, stride=2)
        self.third = convolved(2 * width, 4 * width, stride=2)
        self.wider = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.fourth = convolved(4 * width, 2 * width)
        self.widest = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.fifth = convolved(2 * width, width)
        self.classes = nn.Conv2d(width, _CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        x = self.wider(self.third(second))
        x = self.widest(self.fourth(torch.cat([x, second], dim=1)))
        return self.classes(self.fifth(torch.cat([x, first], dim=1)))


def dice_ce(model: nn.Module, pictures: Tensor, classes: Tensor) -> Tensor:
    """Dice and cross entropy, as libraries of medical images write it, with their checks."""
    if (classes >= _CLASSES).any():
        raise ValueError("a label is no class")
    scores = model(pictures)
    wanted = F.one_hot(classes, _CLASSES).movedim(-1, 1).to(scores.dtype)
    likely = scores.softmax(1)
    both = (likely * wanted).sum((2, 3))
    all_of = likely.sum((2, 3)) + wanted.sum((2, 3))
    dice = 1 - (2 * both + 1e-5) / (all_of + 1e-5)
    if torch.isnan(dice).any():
        dice = dice[~torch.isnan(dice)]
    return dice.mean() + F.cross_entropy(scores, classes)


def hardest(model: nn.Module, pictures: Tensor, classes: Tensor) -> Tensor:
    """The mean over the hardest quarter of the labeled pixels; nothing where none is labeled."""
    scores = model(pictures)
    known = classes != _UNLABELED
    scores, classes = scores.movedim(1, -1)[known], classes[known]
    if classes.numel() == 0:
        return scores.sum()
    losses = F.cross_entropy(scores, classes, reduction="none")
    return losses.topk(max(1, losses.numel() // 4)).values.mean()


def segmentation(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        pictures = images(generator, n["batch"], 3, n["side"])
        return pictures, torch.randint(_CLASSES, pictures[:, 0].shape, generator=generator)

    return Workload(UNet(n["width"]), sample, dice_ce)


def mining(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        pictures = images(generator, n["batch"], 3, n["side"])
        classes = torch.randint(_CLASSES, pictures[:, 0].shape, generator=generator)
        unknown = torch.rand(classes.shape, generator=generator) < 0.2
        return pictures, classes.masked_fill(unknown, _UNLABELED)

    return Workload(UNet(n["width"]), sample, hardest)


class Stage(nn.Module):
    """Half as many rows and columns, and a classifier of what is left."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.layers = convolved(width_in, width, stride=2)
        self.leave = nn.Linear(width, _CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(x)
        return x, self.leave(x.mean((2, 3)))


class EarlyExits(nn.Module):
    """A classifier behind every stage; the first that is sure enough ends the forward."""

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        width = n["width"]
        widths = [3, *(width * 2**i for i in range(n["stages"]))]
        self.stages = nn.ModuleList(Stage(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        total = x.new_zeros(())
        for stage in self.stages:
            x, scores = stage(x)
            total = total + F.cross_entropy(scores, classes)
            if scores.softmax(-1).amax(-1).mean() > 0.9:
                break
        # Large losses are scaled down by their own size.
        size = total.item()
        return total / size if size > 1 else total


def early_exits(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        pictures = images(generator, n["batch"], 3, n["side"])
        return pictures, labels(generator, n["batch"], _CLASSES)

    return Workload(EarlyExits(n), sample, whole)


class QuantizedAutoencoder(nn.Module):
    """A VQ-VAE: codes learn by moving averages, and dead ones are drawn anew from the batch."""

    counts: Tensor
    codes: Tensor

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        width = n["width"]
        self.encoder = nn.Sequential(
            convolved(3, width, stride=2), convolved(width, width, stride=2)
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, stride=2),
            convolved(width, width),
            nn.ConvTranspose2d(width, 3, 2, stride=2),
        )
        self.register_buffer("codes", torch.randn(n["codes"], width))
        self.register_buffer("counts", torch.ones(n["codes"]))

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.encoder(pictures)
        flat = x.movedim(1, -1).flatten(0, -2)
        nearest = torch.cdist(flat, self.codes).argmin(-1)
        chosen = self.codes[nearest].reshape(x.movedim(1, -1).shape).movedim(-1, 1)
        self.learn(flat.detach(), nearest)
        straight = x + (chosen - x).detach()
        return F.mse_loss(self.decoder(straight), pictures) + 0.25 * F.mse_loss(x, chosen.detach())

    @torch.no_grad()
    def learn(self, flat: Tensor, nearest: Tensor) -> None:
        used = F.one_hot(nearest, len(self.codes)).to(flat.dtype)
        self.counts.lerp_(used.sum(0), 0.5)
        self.codes.lerp_((used.T @ flat) / used.sum(0).clamp(min=1)[:, None], 0.1)
        dead = self.counts < 1
        if dead.any():
            drawn = flat[torch.randint(len(flat), dead.shape)]
            self.codes.copy_(torch.where(dead[:, None], drawn, self.codes))
            self.counts.clamp_(min=1)


def quantized(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        return (images(generator, n["batch"], 3, n["side"]),)

    return Workload(QuantizedAutoencoder(n), sample, whole)


STEPS = (
    BrokenStep(
        "dice-unet",
        "a U-Net in plain torch",
        {
            "tiny": {"width": 4, "side": 16, "batch": 2},
            "bench": {"width": 16, "side": 64, "batch": 4},
        },
        segmentation,
        cause="checks of labels and of the loss by `if tensor.any()`",
    ),
    BrokenStep(
        "hard-pixels",
        "a U-Net in plain torch",
        {
            "tiny": {"width": 4, "side": 16, "batch": 2},
            "bench": {"width": 16, "side": 64, "batch": 4},
        },
        mining,
        cause="a branch on how many pixels `x[mask]` has, and a share of them",
    ),
    BrokenStep(
        "early-exits",
        "a classifier with exits in plain torch",
        {
            "tiny": {"width": 4, "stages": 2, "side": 16, "batch": 2},
            "bench": {"width": 24, "stages": 3, "side": 96, "batch": 8},
        },
        early_exits,
        cause="`break` and `if` on values of tensors, and a loss scaled by its own item()",
    ),
    BrokenStep(
        "vq-vae",
        "a VQ-VAE in plain torch",
        {
            "tiny": {"width": 8, "codes": 16, "side": 16, "batch": 2},
            "bench": {"width": 32, "codes": 128, "side": 64, "batch": 4},
        },
        quantized,
        cause="buffers changed and random numbers drawn behind `if dead.any()`",
    ),
)
