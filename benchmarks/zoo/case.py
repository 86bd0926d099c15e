"""What a benchmark model is: a factory of workloads, each a model, its batches and its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.chain import NoChain, Segments

Batch = tuple[Tensor, ...]
Sizes = Mapping[str, Mapping[str, int]]


class LossModule(nn.Module):
    """The model with its loss inside, so that one compiled graph sees the whole step."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.autocast = autocast

    def forward(self, *batch: Tensor) -> Tensor:
        if self.autocast is None:
            return self.loss(self.model, *batch)
        with torch.autocast(batch[0].device.type, self.autocast):
            return self.loss(self.model, *batch)


@dataclass(frozen=True)
class Workload:
    """A training step: `loss(model, *batch(i))` is a scalar, `backward()` on it ends the step.

    `segments` regroups the model's repeated blocks for the methods that wrap blocks by hand.
    """

    model: nn.Module
    sample: Callable[[torch.Generator], Batch]
    loss: Callable[..., Tensor]
    segments: Segments = field(default_factory=NoChain)
    device: str = "cpu"
    autocast: torch.dtype | None = None
    seed: int = 0

    def batch(self, index: int) -> Batch:
        """Step `index`'s inputs: the same on every call and on every device."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + index)
        return tuple(t.to(self.device) for t in self.sample(generator))

    def step_module(self) -> LossModule:
        """A module of the whole step's forward: `step(*batch) -> scalar loss`."""
        return LossModule(self.model, self.loss, self.autocast).train(self.model.training)

    def to(self, device: str, autocast: torch.dtype | None = None) -> Workload:
        """The same workload on another device; the model itself moves."""
        return replace(self, model=self.model.to(device), device=device, autocast=autocast)


@dataclass(frozen=True)
class Case:
    """A named model: `source` says whose code it is, `make` builds it at a size.

    Sizes are `tiny` (seconds, for tests), `bench` (activations dominate, 2 CPU cores manage),
    `quick` (the same at a smaller batch, where the quick suite has the model) and
    `cuda` (the published size). `make` takes any of the size's own numbers as a keyword, for
    instance `batch=8`.
    """

    name: str
    source: str
    sizes: Sizes
    build: Callable[[Mapping[str, int]], Workload]
    precision: torch.dtype = torch.bfloat16

    def make(self, size: str = "tiny", seed: int = 0, **numbers: int) -> Workload:
        if size not in self.sizes:
            raise ValueError(f"{self.name} has no size {size!r}; it has {', '.join(self.sizes)}")
        unknown = set(numbers) - set(self.sizes[size])
        if unknown:
            known = ", ".join(self.sizes[size])
            raise ValueError(f"{self.name} has no number {sorted(unknown)}; it has {known}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            workload = self.build({**self.sizes[size], **numbers})
        return replace(workload, model=workload.model.train(), seed=seed)


def tokens(generator: torch.Generator, batch: int, length: int, vocabulary: int) -> Tensor:
    """Random token ids."""
    return torch.randint(vocabulary, (batch, length), generator=generator)


def images(generator: torch.Generator, batch: int, channels: int, side: int) -> Tensor:
    """Random images of a unit normal."""
    return torch.randn(batch, channels, side, side, generator=generator)


def labels(generator: torch.Generator, batch: int, classes: int) -> Tensor:
    """Random class labels."""
    return torch.randint(classes, (batch,), generator=generator)


def pretrained(cls: Any, config: Any, attention: str | None = None) -> nn.Module:
    """A transformers model of a configuration, random weights, nothing downloaded."""
    if attention is not None:
        config._attn_implementation = attention
    return cls(config)
