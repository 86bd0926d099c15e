"""How a model's repeated blocks are found and grouped, for the methods that wrap blocks by hand.

`segments(model, size)` regroups the model in place into runs of `size` blocks and returns the
modules to wrap, in the order of the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

Carry = Callable[[tuple[Any, ...], Any], tuple[Any, ...]]


class Segments(Protocol):
    """Regroups a model into segments of `size` blocks and returns the segments."""

    def __call__(self, model: nn.Module, size: int) -> list[nn.Module]: ...

    def count(self, model: nn.Module) -> int:
        """How many blocks the model has."""
        ...


class NotAChain(Exception):
    """The model's blocks can't be grouped like this."""


def replace_first(args: tuple[Any, ...], out: Any) -> tuple[Any, ...]:
    """A block's output is the next block's first argument."""
    return (out, *args[1:])


class Run(nn.Module):
    """Several blocks in sequence, called as the first of them is."""

    def __init__(self, blocks: list[nn.Module], carry: Carry) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.carry = carry

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out: Any = None
        for block in self.blocks:
            out = block(*args, **kwargs)
            args = self.carry(args, out)
        return out


@dataclass(frozen=True)
class Containers:
    """Blocks that stand in module lists; a segment never crosses two lists.

    `linear` is false where the code between two blocks also reads their outputs (a U-Net's skip
    connections): such blocks can be wrapped one by one, but not grouped.
    """

    paths: tuple[str, ...]
    carry: Carry = replace_first
    linear: bool = True

    def count(self, model: nn.Module) -> int:
        return sum(len(self._list(model, path)) for path in self.paths)

    def __call__(self, model: nn.Module, size: int) -> list[nn.Module]:
        if size > 1 and not self.linear:
            raise NotAChain("skip connections leave between the blocks: they are no sequence")
        found: list[nn.Module] = []
        for path in self.paths:
            container = self._list(model, path)
            blocks = list(container)
            if size > 1:
                parts = [blocks[i : i + size] for i in range(0, len(blocks), size)]
                blocks = [Run(part, self.carry) for part in parts]
                parent_path, _, name = path.rpartition(".")
                setattr(
                    model.get_submodule(parent_path), name, type(container)(*_as(container, blocks))
                )
            found.extend(blocks)
        return found

    @staticmethod
    def _list(model: nn.Module, path: str) -> Any:
        return model.get_submodule(path)


def _as(container: nn.Module, blocks: Sequence[nn.Module]) -> list[Any]:
    return list(blocks) if isinstance(container, nn.Sequential) else [blocks]


@dataclass(frozen=True)
class TimeLoop:
    """One module called over stretches of time steps; `attribute` holds the stretch's length."""

    path: str
    steps: int
    attribute: str = "stretch"

    def count(self, model: nn.Module) -> int:
        del model
        return self.steps

    def __call__(self, model: nn.Module, size: int) -> list[nn.Module]:
        setattr(model, self.attribute, size)
        return [model.get_submodule(self.path)]


@dataclass(frozen=True)
class NoChain:
    """A model without repeated blocks."""

    def count(self, model: nn.Module) -> int:
        del model
        return 0

    def __call__(self, model: nn.Module, size: int) -> list[nn.Module]:
        del model, size
        raise NotAChain("the model has no repeated blocks")
