"""States of a GPU's loop in pinned host memory, copied beside the GPU's work."""

from __future__ import annotations

import torch

from fxremat.loops.packed import Packing
from fxremat.loops.store import Kept


class Host:
    """One pinned piece a state, written and read on a stream of its own.

    The state that is read next, the last but one, is on its way to the GPU while the one before it
    is in use: it takes a state's memory there. What of a state is on the CPU is copied at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._kept: dict[int, tuple[Packing, torch.Tensor]] = {}
        self._ahead: dict[int, Kept] = {}

    def put(self, number: int, kept: Kept) -> None:
        packing, tensors = Packing.of(kept)
        whole = torch.empty(packing.nbytes, dtype=torch.uint8, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            packing.write(whole, tensors)
        for tensor in tensors:
            if tensor.is_cuda:
                # Its memory isn't handed out before it is copied.
                tensor.record_stream(self._stream)
        self._kept[number] = (packing, whole)

    def get(self, number: int) -> Kept:
        kept = self._ahead.pop(number, None) or self._fetched(number)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in (*kept.leaves, *kept.random):
            if isinstance(tensor, torch.Tensor) and tensor.is_cuda:
                tensor.record_stream(current)
        self._ahead.clear()
        before = [other for other in self._kept if other < number]
        if before:
            self._ahead[max(before)] = self._fetched(max(before))
        return kept

    def drop(self, number: int) -> None:
        packing, whole = self._kept.pop(number)
        del packing, whole
        self._ahead.pop(number, None)

    def close(self) -> None:
        if self._kept:
            # No copy is under way when its memory goes.
            self._stream.synchronize()
        self._kept.clear()
        self._ahead.clear()

    def _fetched(self, number: int) -> Kept:
        packing, whole = self._kept[number]
        # After its own copy to the host, which is on this stream; nothing else has to be awaited.
        with torch.cuda.stream(self._stream):
            return packing.read(whole)
