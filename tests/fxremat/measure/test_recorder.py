"""Only one recording runs in a process, whatever its threads do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from fxremat.measure.recorder import Levels, start_recorder

CPU = torch.device("cpu")


class Holder:
    def gives_way(self) -> bool:
        return False


def recorded() -> Levels | None:
    """The levels around one tensor of 400 bytes, where they can be noted."""
    holder = Holder()
    recorder = start_recorder(CPU, holder.gives_way)
    if recorder is None:
        return None
    tensor = torch.empty(100)
    recorder.mark()
    del tensor
    return recorder.finish()


def test_a_thread_waits_for_another_ones_recording() -> None:
    """Two at once end the process."""
    holder = Holder()
    with ThreadPoolExecutor(1) as other:
        here = start_recorder(CPU, holder.gives_way)
        assert here is not None
        assert other.submit(recorded).result() is None
        here.finish()
        levels = other.submit(recorded).result()
    assert levels is not None
    assert levels.at_mark == (0, 400)
