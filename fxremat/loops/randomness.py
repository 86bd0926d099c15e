"""The states of the random generators that a loop's steps draw from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Generators:
    """The CPU's global generator, those of some CUDA devices, and some of the user's."""

    cuda: tuple[torch.device, ...] = ()
    own: tuple[torch.Generator, ...] = ()

    @staticmethod
    def of(tensors: Iterable[object], own: tuple[torch.Generator, ...]) -> Generators:
        """Those of the devices that the tensors are on, and the user's."""
        found = {t.device for t in tensors if isinstance(t, torch.Tensor)}
        cuda = sorted((d for d in found if d.type == "cuda"), key=lambda d: d.index or 0)
        return Generators(tuple(cuda), own)

    def read(self) -> tuple[torch.Tensor, ...]:
        """Their states now."""
        return (
            torch.get_rng_state(),
            *(torch.cuda.get_rng_state(device) for device in self.cuda),
            *(generator.get_state() for generator in self.own),
        )

    def write(self, states: tuple[torch.Tensor, ...]) -> None:
        """Put them back to states that were read."""
        torch.set_rng_state(states[0])
        for device, state in zip(self.cuda, states[1:], strict=False):
            torch.cuda.set_rng_state(state, device)
        for generator, state in zip(self.own, states[1 + len(self.cuda) :], strict=True):
            generator.set_state(state)
