"""timm: one small variant of every family, images of 64 pixels, cross entropy over ten classes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.sweep.one import declare_torchvision
from benchmarks.sweep.parts import first_tensor, integers, normal, seeded, workload
from benchmarks.sweep.sources import NotBuilt
from benchmarks.zoo import Workload

_BATCH, _CLASSES = 4, 10
_SIDES = (64, 96, 128, 224, 256)
# What a variant's name says of its size, smallest first.
_SMALL = ("test_", "atto", "femto", "pico", "nano", "xxs", "tiny", "_xs", "_t", "_s", "small")
# A model of a published depth is hundreds of blocks of one kind: one of each stage is kept.
_SHALLOW: tuple[Mapping[str, Any], ...] = (
    {"depth": 2},
    {"depths": (1, 1, 1, 1)},
    {"depths": (1, 1, 1)},
    {"layers": (1, 1, 1, 1)},
    {},
)
_DROPOUT: tuple[Mapping[str, float], ...] = (
    {"drop_rate": 0.1, "drop_path_rate": 0.1},
    {"drop_rate": 0.1},
    {},
)
# Most parameters that a family's smallest variant may have: what is larger takes minutes here.
_LARGEST = 60_000_000


def names() -> list[str]:
    timm = imported()
    return [
        variant(timm, module) for module in timm.list_modules() if timm.list_models(module=module)
    ]


def variant(timm: Any, module: str) -> str:
    """The family's variant whose name says that it is the smallest."""
    found = timm.list_models(module=module)

    def size(name: str) -> tuple[int, int]:
        marks = [i for i, mark in enumerate(_SMALL) if mark in name]
        return (min(marks, default=len(_SMALL)), found.index(name))

    return min(found, key=size)


def make(name: str) -> Workload:
    timm = imported()
    options, side = _options(timm, name)
    model = seeded(lambda: timm.create_model(name, **options))
    inputs = {
        "image": normal(_BATCH, 3, side, side),
        "label": integers(0, _CLASSES, _BATCH),
    }
    return workload(model, inputs, cross_entropy)


@functools.cache
def _options(timm: Any, name: str) -> tuple[Mapping[str, Any], int]:
    """Of what makes models small, what this one takes; and the smallest image that it takes."""
    error: Exception | None = None
    sizes: Iterator[tuple[Any, ...]] = itertools.product(_SHALLOW, _DROPOUT, _SIDES, (True, False))
    for shallow, dropout, side, told in sizes:
        options = {**shallow, **dropout, "num_classes": _CLASSES}
        if told:
            options["img_size"] = side
        try:
            _try(timm, name, options, side)
        except NotBuilt:
            raise
        except Exception as failed:
            error = failed
        else:
            return options, side
    raise NotBuilt(f"{type(error).__name__}: {error}")


def _try(timm: Any, name: str, options: Mapping[str, Any], side: int) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in timm.create_model(name, **options).parameters())
    if count > _LARGEST:
        raise NotBuilt(f"{count / 1e6:.0f} million parameters")
    model = seeded(lambda: timm.create_model(name, **options))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        first_tensor(model(torch.zeros(2, 3, side, side)))


def cross_entropy(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(first_tensor(model(inputs["image"])), inputs["label"])


def imported() -> Any:
    declare_torchvision()
    import timm

    return timm
