"""What one run of an op took, for each op that was measured."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Layout:
    """How a kernel really lays out one of its results; `storage_bytes` as it asks for them."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    stride: tuple[int, ...]
    offset: int
    storage_bytes: int

    @staticmethod
    def of(tensor: torch.Tensor) -> Layout:
        """The layout that a (real or fake) tensor has."""
        return Layout(
            tuple(tensor.shape),
            tensor.dtype,
            tuple(tensor.stride()),
            int(tensor.storage_offset()),
            tensor.untyped_storage().nbytes(),
        )


@dataclass(frozen=True)
class OpProfile:
    """What one run of an op took.

    `output_bytes` are the sizes of its outputs' storages, by position (None for no tensor): some
    kernels leave a result in a larger block than its shape says. `workspace_bytes` is what the op
    allocates beyond them while it runs. `layouts` are those of the outputs in new memory, None for
    others. `seconds` is None where it was not timed.
    """

    output_bytes: tuple[int | None, ...]
    workspace_bytes: int
    layouts: tuple[Layout | None, ...]
    seconds: float | None = None


@dataclass
class OpProfiles:
    """Profiles by op signature, filled as graphs are compiled.

    `unmeasured` are the signatures of ops that failed when they were run by themselves, `given_up`
    those that an earlier process had no time to time.
    """

    by_signature: dict[str, OpProfile] = field(default_factory=dict[str, OpProfile])
    unmeasured: set[str] = field(default_factory=set[str])
    given_up: set[str] = field(default_factory=set[str])
