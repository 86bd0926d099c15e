"""Stacks of blocks with something of Python's between them: prints, checks, loops, logs."""

# torch's own types are partial.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from benchmarks.broken.step import BrokenStep
from benchmarks.zoo import Batch, Workload

_CLASSES = 10


class Block(nn.Module):
    """Mixes tokens, then channels, each added to what came in."""

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        width, tokens = n["width"], n["tokens"]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.tokens = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Dropout(0.1))
        self.tokens.append(nn.Linear(2 * tokens, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1))
        self.channels.append(nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class Stack(nn.Module):
    """Blocks in a row and a classifier; what a subclass adds breaks the graph."""

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.block(n) for _ in range(n["layers"]))
        self.last = nn.Linear(n["width"], _CLASSES)

    def block(self, n: Mapping[str, int]) -> nn.Module:
        return Block(n)

    def classes(self, x: Tensor) -> Tensor:
        return self.last(x.mean(1))


class Printed(Stack):
    """Prints a mean in the middle, as one does to see what goes on."""

    def forward(self, x: Tensor) -> Tensor:
        half = len(self.blocks) // 2
        for block in self.blocks[:half]:
            x = block(x)
        print(f"mean {x.mean().item():.6f}")
        for block in self.blocks[half:]:
            x = block(x)
        return self.classes(x)


def standardized(x: Tensor) -> Tensor:
    """Each channel by its own mean and deviation."""
    return (x - x.mean((0, 1))) / (x.std((0, 1)) + 1e-5)


uncompiled: Any = torch.compiler.disable(standardized)


class Disabled(Stack):
    """An encoder with an uncompiled function between its halves, whose gradients flow on."""

    def forward(self, x: Tensor) -> Tensor:
        half = len(self.blocks) // 2
        for block in self.blocks[:half]:
            x = block(x)
        x = uncompiled(x)
        for block in self.blocks[half:]:
            x = block(x)
        return self.classes(x)


class Checked(Stack):
    """Looks at every block's result inside the loop: Dynamo gives up the whole frame."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
            if not torch.isfinite(x).all():
                raise FloatingPointError("a block's result isn't finite")
        return self.classes(x)


class CheckedSequences(Checked):
    """The same with blocks that are torch's own class, which Dynamo doesn't compile alone."""

    def block(self, n: Mapping[str, int]) -> nn.Module:
        width = n["width"]
        return nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(4 * width, width),
            nn.LayerNorm(width),
        )


class Logged(Stack):
    """Forward hooks write the norm of what every block returns to a log."""

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__(n)
        self.log = io.StringIO()
        for block in self.blocks:
            block.register_forward_hook(self.write)

    def write(self, _module: nn.Module, _args: object, x: Tensor) -> None:
        self.log.write(f"{x.detach().square().mean().sqrt().item():.6f}\n")

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.classes(x)


class Pondering(Stack):
    """Adaptive computation time: one block runs until every token has halted."""

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__({**n, "layers": 1})
        self.halts = nn.Linear(n["width"], 1)

    def forward(self, x: Tensor) -> Tensor:
        halted = x.new_zeros(x.shape[:2])
        result = torch.zeros_like(x)
        while (halted < 0.99).any():
            x = self.blocks[0](x)
            share = torch.minimum(0.3 + 0.3 * self.halts(x).squeeze(-1).sigmoid(), 1 - halted)
            result = result + share[..., None] * x
            halted = halted + share
        return self.classes(result)


def loss(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    return F.cross_entropy(model(x), classes)


def build(n: Mapping[str, int], kind: type[Stack]) -> Workload:
    def sample(generator: Generator) -> Batch:
        x = torch.randn(n["batch"], n["tokens"], n["width"], generator=generator)
        return x, torch.randint(_CLASSES, (n["batch"],), generator=generator)

    return Workload(kind(n), sample, loss)


SIZES = {
    "tiny": {"layers": 2, "width": 16, "tokens": 8, "batch": 2},
    "bench": {"layers": 4, "width": 96, "tokens": 64, "batch": 16},
}


def step(name: str, kind: type[Stack], cause: str) -> BrokenStep:
    built = partial(build, kind=kind)
    return BrokenStep(name, "a stack of blocks in plain torch", SIZES, built, cause=cause)


STEPS = (
    step("printed-mean", Printed, "print(x.mean().item()) between two halves"),
    step("disabled-function", Disabled, "a function under torch.compiler.disable between halves"),
    step("checked-blocks", Checked, "a check inside the loop over blocks of a class of its own"),
    step(
        "checked-sequences", CheckedSequences, "a check inside the loop over nn.Sequential blocks"
    ),
    step(
        "logged-norms",
        Logged,
        "forward hooks that write numbers to a log, inside the loop over blocks",
    ),
    step("pondering", Pondering, "`while tensor.any()`: one block runs as often as data needs"),
)
