"""Deep MLPs, with ReLU (whose backward needs only its output) and with GELU (which needs more)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, labels
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {"layers": 4, "width": 16, "batch": 8},
    "bench": {"layers": 24, "width": 256, "batch": 2048},
    "cuda": {"layers": 48, "width": 2048, "batch": 16384},
}
CLASSES = 10
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(inputs), targets)


def build(n: Mapping[str, int], activation: str) -> Workload:
    width = n["width"]
    blocks = [
        nn.Sequential(nn.Linear(width, width), ACTIVATIONS[activation]())
        for _ in range(n["layers"])
    ]
    model = nn.Sequential(nn.Sequential(*blocks), nn.Linear(width, CLASSES))

    def sample(generator: Generator) -> Batch:
        inputs = torch.randn(n["batch"], width, generator=generator)
        return inputs, labels(generator, n["batch"], CLASSES)

    return Workload(model, sample, loss, Containers(("0",)))


CASES = tuple(
    Case(
        f"mlp-{activation}",
        f"benchmarks.zoo.mlp ({activation.upper()})",
        SIZES,
        partial(build, activation=activation),
    )
    for activation in ACTIVATIONS
)
