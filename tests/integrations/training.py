"""What two trainings leave, and what each step of one takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import fxremat


def left_by(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, buffers and random state, to compare after a training."""
    return {
        **{name: value.detach().clone() for name, value in model.named_parameters()},
        **{name: value.clone() for name, value in model.named_buffers()},
        "random state": torch.get_rng_state(),
    }


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert ours.keys() == theirs.keys()
    differ = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not differ


def graphs_compiled() -> int:
    """How many graphs Dynamo has made so far."""
    return counters["stats"]["unique_graphs"]


def measured_steps(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> list[int]:
    """Gets the peak of each training step of Hugging Face's Trainer that compiles nothing.

    The first `after` steps aren't measured: measuring ends the recording of a step.
    """
    from transformers import Trainer

    peaks: list[int] = []
    plain = Trainer.training_step
    numbers: Iterator[int] = iter(range(10**6))

    def training_step(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if next(numbers) < after:
            return plain(self, *args, **kwargs)
        losses: list[torch.Tensor] = []
        begun = graphs_compiled()
        peak = fxremat.measure_peak(lambda: losses.append(plain(self, *args, **kwargs)))
        if graphs_compiled() == begun:
            peaks.append(peak.peak_bytes)
        return losses[0]

    monkeypatch.setattr(Trainer, "training_step", training_step)
    return peaks
