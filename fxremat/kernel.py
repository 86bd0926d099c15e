"""A kernel, as a node of a graph calls it: what a compiler made, in one piece.

A graph of ATen ops is known by its ops' schemas. Of a compiled kernel nobody but its compiler knows
what it does, so that it says so itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Kernel:
    """A function of tensors that allocates what it returns; two are never equal.

    `key` is equal where two kernels do the same. `writes` are the positions of the arguments that
    it changes. `once` is why it must not run again, empty where it may. `ordered` says that it must
    keep its place among others like it, as draws from a generator do. `measurable` says that it may
    run by itself, on invented data. `is_view` says that what it returns is its argument's memory.
    """

    name: str
    run: Callable[..., Any]
    key: str
    writes: tuple[int, ...] = ()
    once: str = ""
    ordered: bool = False
    measurable: bool = True
    is_view: bool = False

    def __post_init__(self) -> None:
        # What fx calls it in the code that it writes.
        object.__setattr__(self, "__name__", self.name)

    def __call__(self, *args: Any) -> Any:
        return self.run(*args)

    def __str__(self) -> str:
        return self.key

    def __deepcopy__(self, _memo: object) -> Kernel:
        return self

    @property
    def has_effect(self) -> bool:
        """Whether it does more than to make what it returns."""
        return self.ordered or bool(self.writes)
