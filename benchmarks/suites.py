"""Which cells a run has: the quick suite, the full one, or a choice from the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import methods, zoo
from benchmarks.cell import Cell

QUICK_MODELS = ("gpt2-eager", "unet")
QUICK_METHODS = {
    "eager": ("",),
    "aot_default": ("",),
    "aot_eager": ("",),
    "checkpoint-block": ("",),
    "checkpoint-block-compiled": ("",),
    "selective": ("",),
    "torch-budget": ("0.5",),
    "fxremat": ("1", "0.5", "floor", "=checkpoint-block"),
}
QUICK_EFFORT = {"rounds": 8, "compare_steps": 2, "timing_limit_s": 12, "batch_tries": 8}
FULL_EFFORT = {
    "rounds": 10,
    "compare_steps": 3,
    "timing_limit_s": 45,
    "timeline": True,
    "batch_tries": 10,
}

# Variants of other models, and graphs of one question: what tells them apart, not every peer.
VARIANTS = ("gpt2-sdpa", "bert-sdpa", "llama-sdpa", "vit-sdpa", "two-tower", "mlp-relu", "mlp-gelu")
VARIANT_METHODS = {
    "eager": ("",),
    "aot_default": ("",),
    "checkpoint-block": ("",),
    "checkpoint-block-compiled": ("",),
    "selective-compiled": ("",),
    "torch-budget": ("0.5",),
    "fxremat": ("1", "0.5", "floor", "=checkpoint-block"),
}

SEQUENCE_LENGTHS = (256, 512, 1024, 2048, 4096)
SEQUENCE_NUMBERS = {"layers": 4, "width": 64, "heads": 2, "vocabulary": 64, "batch": 1}
SEQUENCE_METHODS = {"eager": "", "checkpoint-block": "", "fxremat": "1.05*floor"}
BATCH_MODELS = ("unet", "vgg16bn")
BATCH_METHODS = ("eager", "aot_default", "checkpoint-block", "checkpoint-block-compiled", "fxremat")
CLIP_MODELS = ("gpt2-eager", "bert-eager")
CLIP_METHODS = {"aot_default": "", "fxremat": "0.5", "checkpoint-block": "", "torch-budget": "0.5"}


def quick() -> list[Cell]:
    return list(chosen(QUICK_MODELS, QUICK_METHODS, size="quick"))


def chosen(
    models: Sequence[str], points: Mapping[str, Sequence[str]], **fields: Any
) -> Iterator[Cell]:
    """Every model with these methods at these points."""
    for model in models:
        for method, some in points.items():
            yield from (Cell(model, method, point, **fields) for point in some)


def steps(
    models: Sequence[str],
    names: Sequence[str],
    points: Sequence[str] | None,
    **fields: Any,
) -> Iterator[Cell]:
    """Every model with every method, at the method's own points or those given."""
    own = {name: methods.get(name).points for name in names}
    if points is not None:
        own = {name: some if some == ("",) else tuple(points) for name, some in own.items()}
    return chosen(models, own, **fields)


def full(device: str = "cpu") -> list[Cell]:
    """The whole benchmark; on CUDA at the published sizes."""
    where = {"device": device, "size": "bench" if device == "cpu" else "cuda"}
    models = [name for name in zoo.CASES if name not in VARIANTS]
    cells = [
        *steps(models, tuple(methods.METHODS), None, **where),
        *chosen(VARIANTS, VARIANT_METHODS, **where),
    ]
    return cells + questions() if device == "cpu" else cells


def questions() -> list[Cell]:
    """The cells of the questions that need more than one step at one size."""
    cells = [
        Cell("gpt2-eager", method, point, numbers={**SEQUENCE_NUMBERS, "length": length})
        for length in SEQUENCE_LENGTHS
        for method, point in SEQUENCE_METHODS.items()
    ]
    cells += [
        Cell(
            model,
            method,
            "=eager",
            kind="batch",
            numbers={"batch": zoo.get(model).sizes["bench"]["batch"]},
        )
        for model in BATCH_MODELS
        for method in BATCH_METHODS
    ]
    cells += [
        Cell(model, method, point, kind="clip")
        for model in CLIP_MODELS
        for method, point in CLIP_METHODS.items()
    ]
    return cells
