"""Only one recording runs in a process, whatever its threads do."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import torch

import fxremat
from fxremat import torch_hooks
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


def test_one_that_is_dropped_within_a_backward_ends_before_the_next() -> None:
    """As the garbage collector drops them: at any moment. torch can't stop a profiler then."""
    holder = Holder()
    recorders = [start_recorder(CPU, holder.gives_way)]
    x = torch.ones(2, requires_grad=True)
    x.register_hook(lambda _: recorders.clear())
    x.sum().backward()
    assert torch_hooks.profiler_is_active()
    assert fxremat.measure_peak(lambda: torch.empty(100)).peak_bytes == 400
    levels = recorded()
    assert levels is not None
    assert levels.at_mark == (0, 400)


def test_one_that_another_thread_drops_ends_before_the_next() -> None:
    holder = Holder()
    recorders = [start_recorder(CPU, holder.gives_way)]
    with ThreadPoolExecutor(1) as other:
        other.submit(recorders.clear).result()
        assert torch_hooks.profiler_is_active()
        assert other.submit(recorded).result() is None
    assert recorded() is not None
    assert not torch_hooks.profiler_is_active()


LEFT_HALFWAY = """
import torch
from fxremat.measure.recorder import start_recorder

class Holder:
    def gives_way(self):
        return False

holder = Holder()
holder.recorder = start_recorder(torch.device("cpu"), holder.gives_way)
holder.itself = holder
raise ValueError("of the model's")
"""


def test_a_program_that_ends_while_one_runs_ends_as_usual() -> None:
    """By an exception in a model's forward, say. torch's profiler would end it by a signal."""
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_HALFWAY], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.rstrip().endswith("ValueError: of the model's")
