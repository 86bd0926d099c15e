"""States in files that are mapped into memory. The files have no names: nothing is ever left."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile

import torch

from fxremat.errors import StorageError
from fxremat.loops.packed import Packing
from fxremat.loops.store import Kept


class Disk:
    """A file a state, in a folder. What is read is a view of its file, paged in when it is used.

    The file's blocks are reserved before it is written, so that a full disk is an error then. The
    state that is read next, the last but one, is fetched ahead by the system.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._kept: dict[int, tuple[Packing, mmap.mmap]] = {}
        if not os.path.isdir(folder):
            raise StorageError(f"{folder!r} is no folder: make it, or name another")

    def put(self, number: int, kept: Kept) -> None:
        packing, tensors = Packing.of(kept)
        mapped = self._mapped(packing.nbytes)
        packing.write(_bytes(mapped), tensors)
        if any(t.device.type != "cpu" for t in tensors):
            torch.cuda.synchronize()
        # The system may write it and take the pages away from now on.
        with contextlib.suppress(OSError, ValueError):
            mapped.flush()
            mapped.madvise(mmap.MADV_DONTNEED)
        self._kept[number] = (packing, mapped)

    def get(self, number: int) -> Kept:
        packing, mapped = self._kept[number]
        before = [other for other in self._kept if other < number]
        if before:
            with contextlib.suppress(OSError, ValueError):
                self._kept[max(before)][1].madvise(mmap.MADV_WILLNEED)
        return packing.read(_bytes(mapped))

    def drop(self, number: int) -> None:
        # The mapping goes with the last tensor that views it.
        del self._kept[number]

    def close(self) -> None:
        self._kept.clear()

    def _mapped(self, nbytes: int) -> mmap.mmap:
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, nbytes)
                else:
                    file.truncate(nbytes)
                return mmap.mmap(file.fileno(), nbytes)
        except OSError as error:
            taken = sum(packing.nbytes for packing, _ in self._kept.values())
            raise StorageError(
                f"a state of {nbytes} bytes can't be written into {self._folder!r} "
                f"({error.strerror}), beside {taken} bytes of {len(self._kept)} states: name a "
                "folder with more space, or give the loop more slots, so that fewer go there"
            ) from error


def _bytes(mapped: mmap.mmap) -> torch.Tensor:
    return torch.frombuffer(mapped, dtype=torch.uint8)
