"""Autocast around a loop: its state at the first run, put back where a step runs again."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass

import torch

from fxremat import torch_hooks
from fxremat.errors import LoopError


@dataclass(frozen=True)
class Casting:
    """What autocast does on each kind of device: (device type, enabled, dtype)."""

    kinds: tuple[tuple[str, bool, torch.dtype], ...]

    @staticmethod
    def now(device_types: set[str]) -> Casting:
        """The state of autocast for these kinds of devices."""
        return Casting(
            tuple(
                (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
                for kind in sorted(device_types)
            )
        )

    def check(self) -> None:
        """Raise where parameters would be cast once for all steps, which no replay can repeat."""
        if any(enabled for _, enabled, _ in self.kinds) and torch_hooks.autocast_caches():
            raise LoopError(
                "autocast is on around the loop and keeps one cast of each parameter for all "
                "steps, whose gradient is summed in low precision: a step that runs again can't "
                "repeat that. Put torch.autocast into the step, or give it cache_enabled=False"
            )

    def refuse(self) -> None:
        """Raise where autocast is on at all, as a compiled step was traced without it."""
        if any(enabled for _, enabled, _ in self.kinds):
            raise LoopError(
                "autocast is on around a loop with compile=True, whose step is traced once: put "
                "torch.autocast into the step, or leave compile out"
            )

    @contextlib.contextmanager
    def applied(self) -> Generator[None, None, None]:
        """Autocast as it was."""
        with contextlib.ExitStack() as stack:
            for kind, enabled, dtype in self.kinds:
                stack.enter_context(
                    torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False)
                )
            yield
