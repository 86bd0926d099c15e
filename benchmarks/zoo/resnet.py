"""ResNet-50: bottleneck blocks, batch norms with running statistics, in-place additions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, images, labels, pretrained
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {"width": 8, "shallow": 1, "batch": 2, "side": 32},
    "bench": {"width": 64, "shallow": 0, "batch": 16, "side": 96},
    "cuda": {"width": 64, "shallow": 0, "batch": 128, "side": 224},
}
CLASSES = 10


def loss(model: nn.Module, pixels: Tensor, targets: Tensor) -> Tensor:
    logits = model(pixel_values=pixels).logits
    return nn.functional.cross_entropy(logits, targets)


def build(n: Mapping[str, int]) -> Workload:
    from transformers import ResNetConfig, ResNetForImageClassification

    width = n["width"]
    config = ResNetConfig(
        embedding_size=width,
        hidden_sizes=[4 * width, 8 * width, 16 * width, 32 * width],
        depths=[1, 1, 1, 1] if n["shallow"] else [3, 4, 6, 3],
        layer_type="bottleneck",
        num_labels=CLASSES,
    )

    def sample(generator: Generator) -> Batch:
        return images(generator, n["batch"], 3, n["side"]), labels(generator, n["batch"], CLASSES)

    stages = tuple(f"resnet.encoder.stages.{i}.layers" for i in range(4))
    model = pretrained(ResNetForImageClassification, config)
    return Workload(model, sample, loss, Containers(stages))


CASES = (Case("resnet50", "transformers ResNetForImageClassification", SIZES, build),)
