"""What gradient clipping decides over a training run, against eager's decisions.

All runs start alike and train for themselves, clipped at the median norm of an unclipped eager run:
where the random masks of a recomputation aren't the forward's, norms and decisions drift apart
though every loss looks right.
"""

from __future__ import annotations

import copy
import math
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
LEARNING_RATE = 0.02


def run(cell: Cell, effort: Mapping[str, Any]) -> dict[str, Any]:
    del effort
    workload, reference, prepared, step = prepare(cell)
    probed = copy.deepcopy(reference.module)
    limit = statistics.median(trained_norms(Step(probed, probed), workload.batch, math.inf))
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
