"""Whether a step that runs again gives what it gave: each replayed state against its first bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from fxremat.errors import LoopError, OptionError

Check = Literal["first", "always", "never"]

_TIMES = {"first": 1, "always": math.inf, "never": 0}


class Replays:
    """Sums over the bits of the states that steps were differentiated at.

    The state that comes out of step i - 1 when it is differentiated must be the one that step i
    was differentiated at. A sum of 64-bit words, so that no state is held for it.
    """

    def __init__(self, check: Check) -> None:
        if check not in _TIMES:
            raise OptionError(f"check is {check!r}: it is one of {', '.join(map(repr, _TIMES))}")
        self._left = _TIMES[check]
        self._sum: torch.Tensor | None = None
        self._sums: dict[int, list[int]] = {}

    def note(self, number: int, leaves: Sequence[Any]) -> None:
        """The state that a step is differentiated at."""
        if self._left > 1 or (self._left == 1 and not self._sums):
            self._sums[number] = [self._bits(t) for t in leaves]

    def compare(self, number: int, leaves: Sequence[Any]) -> None:
        """The state that came out of the step before it; raises where its bits differ."""
        expected = self._sums.pop(number, None)
        if expected is None:
            return
        self._left -= 1
        for index, (before, leaf) in enumerate(zip(expected, leaves, strict=True)):
            if before != self._bits(leaf):
                raise LoopError(
                    f"step {number - 1} gave another state when it ran again (leaf {index}): it "
                    "depends on more than its arguments and torch's generators, such as a counter, "
                    "a file, Python's or NumPy's random numbers, or kernels that aren't "
                    "deterministic. Put what changes into the state or into xs; where it is only "
                    "the kernels, torch.use_deterministic_algorithms(True), or check='never'"
                )

    def _bits(self, leaf: Any) -> int:
        if not isinstance(leaf, torch.Tensor):
            return hash(repr(leaf))
        if self._sum is None or self._sum.device != leaf.device:
            # Made once, so that a check takes the same memory wherever it comes.
            self._sum = torch.empty((), dtype=torch.int64, device=leaf.device)
        flat = leaf.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        if flat.is_complex():
            flat = torch.view_as_real(flat).reshape(-1)
        data = flat.view(torch.uint8)
        whole = data.numel() // 8 * 8
        if data.data_ptr() % 8 or data.storage_offset() % 8:
            whole = 0
        torch.sum(data[:whole].view(torch.int64), dim=0, out=self._sum)
        total = int(self._sum)
        torch.sum(data[whole:], dim=0, dtype=torch.int64, out=self._sum)
        return hash((total, int(self._sum)))
