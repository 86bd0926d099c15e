"""ViT, an image transformer; dropout on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, images, labels, pretrained
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {"layers": 2, "width": 32, "heads": 2, "batch": 2, "side": 16, "patch": 4},
    "bench": {"layers": 6, "width": 192, "heads": 6, "batch": 8, "side": 128, "patch": 8},
    "cuda": {"layers": 12, "width": 768, "heads": 12, "batch": 64, "side": 224, "patch": 16},
}
CLASSES = 10


def loss(model: nn.Module, pixels: Tensor, targets: Tensor) -> Tensor:
    logits = model(pixel_values=pixels).logits
    return nn.functional.cross_entropy(logits, targets)


def build(n: Mapping[str, int], attention: str) -> Workload:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=n["width"],
        num_hidden_layers=n["layers"],
        num_attention_heads=n["heads"],
        intermediate_size=4 * n["width"],
        image_size=n["side"],
        patch_size=n["patch"],
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        num_labels=CLASSES,
    )

    def sample(generator: Generator) -> Batch:
        return images(generator, n["batch"], 3, n["side"]), labels(generator, n["batch"], CLASSES)

    model = pretrained(ViTForImageClassification, config, attention)
    return Workload(model, sample, loss, Containers(("vit.layers",)))


CASES = tuple(
    Case(
        f"vit-{attention}",
        "transformers ViTForImageClassification",
        SIZES,
        partial(build, attention=attention),
    )
    for attention in ("eager", "sdpa")
)
