"""A kernel, as a node of a graph calls it: what a compiler made, in one piece.

A graph of ATen ops is known by its ops' schemas. Of a compiled kernel nobody but its compiler knows
what it does, so that it says so itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Kernel:
    """A function of tensors that allocates what it returns; two are never equal.

    `key` is equal where two kernels do the same. `writes` are the positions of the arguments that
    it changes. `once` is why it must not run again, empty where it may. `ordered` says that it must
    keep its place among others like it, `draws` that it draws from its device's generator, which
    makes it keep its place among what draws. `measurable` says that it may run by itself, on
    invented data. `is_view` says that what it returns is its argument's memory. `in_place` are
    pairs of a result and an argument that it could be written over, by position; `run_in_place`
    makes the function that does so for some of them.
    """

    name: str
    run: Callable[..., Any]
    key: str
    writes: tuple[int, ...] = ()
    once: str = ""
    ordered: bool = False
    draws: bool = False
    measurable: bool = True
    is_view: bool = False
    in_place: tuple[tuple[int, int], ...] = ()
    run_in_place: Callable[[tuple[tuple[int, int], ...]], Callable[..., Any]] | None = None

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


def writing_in_place(
    kernel: Kernel, pairs: tuple[tuple[int, int], ...], *, is_kept: Callable[[], bool] | None
) -> Kernel:
    """A kernel that writes results over arguments; those are of no use to anyone afterwards.

    With `is_kept` it is asked, at each call, whether somebody may need them after all.
    """
    assert kernel.run_in_place is not None
    in_place = kernel.run_in_place(pairs)

    def run(*args: Any) -> Any:
        return kernel.run(*args) if is_kept is not None and is_kept() else in_place(*args)

    chosen = in_place if is_kept is None else run
    return Kernel(f"{kernel.name}_in_place", chosen, f"in place {pairs} {kernel.key}")


def keeping_generator_state(kernel: Kernel, device: torch.device) -> Kernel:
    """A kernel that also returns the state of its device's generator before it ran, first."""

    def run(*args: Any) -> Any:
        state = _generator_state(device)
        return state, kernel.run(*args)

    return Kernel(f"{kernel.name}_with_state", run, f"with its state {kernel.key}")


def from_generator_state(kernel: Kernel, device: torch.device) -> Kernel:
    """A kernel that is given a state, draws from there, and leaves the generator as it was."""

    def run(state: torch.Tensor, *args: Any) -> Any:
        now = _generator_state(device)
        _set_generator_state(device, state)
        try:
            return kernel.run(*args)
        finally:
            _set_generator_state(device, now)

    return Kernel(f"{kernel.name}_from_state", run, f"from a state {kernel.key}")


def _generator_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_generator_state(device: torch.device, state: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
