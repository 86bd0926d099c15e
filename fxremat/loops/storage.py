"""Where a loop's states go: near, where its tensors are, and far, with a price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fxremat.errors import OptionError
from fxremat.loops.disk import Disk
from fxremat.loops.host import Host
from fxremat.loops.store import Memory, Store


@dataclass(frozen=True)
class Storage:
    """``"ram"``: all states are near. ``"cpu"``: further ones go into pinned host memory, for loops
    on a GPU. ``"disk:FOLDER"``: further ones go into files there.

    `slots` states are near. What else is kept is chosen by the prices of a write and a read, in
    evaluations of the step.
    """

    place: str = "ram"
    write: float = 2.0
    read: float = 2.0

    def __post_init__(self) -> None:
        if self.place not in ("ram", "cpu") and not self.place.startswith("disk:"):
            raise OptionError(
                f"store is {self.place!r}: it is 'ram', 'cpu' (pinned host memory) or 'disk:FOLDER'"
            )
        if not (self.write >= 0 and self.read >= 0):
            raise OptionError("the prices of a Storage are not negative")

    @staticmethod
    def of(store: object) -> Storage:
        """A place by its name is one at the usual prices."""
        if isinstance(store, Storage):
            return store
        if isinstance(store, str):
            return Storage(store)
        raise OptionError(
            f"store is a {type(store).__name__}: it is 'ram', 'cpu', 'disk:FOLDER' or a Storage"
        )

    @property
    def is_far(self) -> bool:
        """Whether states may go elsewhere than where the loop's tensors are."""
        return self.place != "ram"

    def stores(self, device: torch.device) -> Mapping[int, Store]:
        """The places by their levels."""
        if self.place == "ram":
            return {0: Memory()}
        if self.place == "cpu":
            # For a loop on the CPU that is where its states are.
            return {0: Memory(), 1: Host(device) if device.type == "cuda" else Memory()}
        return {0: Memory(), 1: Disk(self.place.removeprefix("disk:"))}
