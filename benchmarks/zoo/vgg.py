"""VGG-16 with batch norms: a plain stack of 3x3 convolutions, in-place ReLUs, dropout at the end.

Simonyan and Zisserman, "Very Deep Convolutional Networks", configuration D.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, images, labels
from benchmarks.zoo.chain import Containers

# Output channels as multiples of the first layer's; 0 is a max-pool.
LAYERS = (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0)
SIZES = {
    "tiny": {"width": 4, "hidden": 32, "pooled": 1, "batch": 2, "side": 32},
    "bench": {"width": 32, "hidden": 256, "pooled": 1, "batch": 8, "side": 96},
    "cuda": {"width": 64, "hidden": 4096, "pooled": 7, "batch": 64, "side": 224},
}
CLASSES = 10


class Vgg16(nn.Module):
    """`features` is a stack of blocks (convolution, norm, ReLU, and the pool that follows)."""

    def __init__(self, width: int, hidden: int, pooled: int) -> None:
        super().__init__()
        blocks: list[nn.Sequential] = []
        channels = 3
        for multiple in LAYERS:
            if multiple == 0:
                blocks[-1].append(nn.MaxPool2d(2))
                continue
            convolution = nn.Conv2d(channels, multiple * width, 3, padding=1)
            norm = nn.BatchNorm2d(multiple * width)
            blocks.append(nn.Sequential(convolution, norm, nn.ReLU(inplace=True)))
            channels = multiple * width
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(pooled)
        self.classifier = nn.Sequential(
            nn.Linear(channels * pooled * pooled, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(hidden, CLASSES),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(pixels)).flatten(1))


def loss(model: nn.Module, pixels: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(pixels), targets)


def build(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        return images(generator, n["batch"], 3, n["side"]), labels(generator, n["batch"], CLASSES)

    model = Vgg16(n["width"], n["hidden"], n["pooled"])
    return Workload(model, sample, loss, Containers(("features",)))


CASES = (Case("vgg16bn", "benchmarks.zoo.vgg (configuration D of the paper)", SIZES, build),)
