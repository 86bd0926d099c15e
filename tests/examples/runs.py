"""An example's training run, step by step: what it leaves, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import fxremat

State = list[torch.Tensor | None]


def states(run: Iterator[Any], module: nn.Module, steps: int) -> list[State]:
    """All gradients before each optimizer's step; parameters, buffers, random state after each."""
    seen: list[State] = []

    def note_gradients(*_unused: object) -> None:
        gradients = [p.grad for p in module.parameters()]
        seen.append([None if g is None else g.clone() for g in gradients])

    hook = register_optimizer_step_pre_hook(note_gradients)
    torch.manual_seed(1)
    try:
        for _ in range(steps):
            next(run)
            kept = (*module.parameters(), *module.buffers())
            seen.append([*(t.detach().clone() for t in kept), torch.get_rng_state()])
    finally:
        hook.remove()
    return seen


def assert_same(expected: list[State], found: list[State]) -> None:
    """Bit for bit, and there is something to compare."""
    assert len(expected) == len(found)
    for number, (theirs, ours) in enumerate(zip(expected, found, strict=True)):
        assert any(t is not None for t in theirs)
        for index, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            assert (a is None) == (b is None), (number, index)
            assert a is None or b is None or torch.equal(a, b), (number, index)


def peak(run: Iterator[Any], steps: int = 2) -> int:
    """The most that one of the next steps takes; gradients are None in between."""
    return max(fxremat.measure_peak(lambda: next(run)).peak_bytes for _ in range(steps))
