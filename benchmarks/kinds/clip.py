"""What gradient clipping decides over a training run, against eager's decisions.

Both runs start alike and train for themselves, clipped at the median norm of eager's first steps:
where the random masks of a recomputation aren't the forward's, norms and decisions drift apart
though every loss looks right.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.kinds.step import prepare
from benchmarks.measure import Step
from benchmarks.zoo import Batch

if TYPE_CHECKING:
    from benchmarks.cell import Cell

STEPS = 20
LEARNING_RATE = 0.05


def run(cell: Cell, effort: Mapping[str, Any]) -> dict[str, Any]:
    del effort
    workload, reference, prepared, step = prepare(cell)
    probe = [norm_of(reference, workload.batch(i), i) for i in range(5)]
    limit = statistics.median(probe)
    if workload.device == "cpu":
        reset_buffers(step, reference)
    mine = trained_norms(step, workload.batch, limit)
    theirs = trained_norms(reference, workload.batch, limit)
    fired = [i for i in range(STEPS) if mine[i] > limit]
    should = [i for i in range(STEPS) if theirs[i] > limit]
    return {
        "limit": limit,
        "norms": mine,
        "eager_norms": theirs,
        "norms_identical": mine == theirs,
        "clipped_steps": fired,
        "eager_clipped_steps": should,
        "decisions_differ": len(set(fired) ^ set(should)),
        "largest_norm_error": max(abs(a / b - 1) for a, b in zip(mine, theirs, strict=True)),
        "facts": dict(prepared.facts()),
    }


def reset_buffers(step: Step, reference: Step) -> None:
    """Both start from the same running statistics, which probing has moved."""
    pairs = zip(step.module.buffers(), reference.module.buffers(), strict=True)
    for mine, theirs in pairs:
        mine.copy_(theirs)


def norm_of(step: Step, batch: Batch, seed: int) -> float:
    torch.manual_seed(seed)
    step.clear()
    step.run(batch)
    return torch.nn.utils.get_total_norm(
        [p.grad for p in step.module.parameters() if p.grad is not None]
    ).item()


def trained_norms(step: Step, batches: Callable[[int], Batch], limit: float) -> list[float]:
    """The norm before clipping at every step of a run of plain SGD."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(step.module.parameters(), lr=LEARNING_RATE)
    norms: list[float] = []
    for i in range(STEPS):
        step.clear()
        step.run(batches(i))
        norm = torch.nn.utils.clip_grad_norm_(step.module.parameters(), limit)
        norms.append(norm.item())
        optimizer.step()
    return norms
