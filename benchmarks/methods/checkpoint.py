"""`torch.utils.checkpoint` by hand: per block, every second block, sqrt(n), and selective.

All with `use_reentrant=False`, the form that torch recommends, in eager mode and under
`torch.compile` (its graph run op by op, as fxremat's is), where the peak is lower and the step
faster. The block is each family's own: a transformer layer, a bottleneck, a resnet of the U-Net, a
time step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from benchmarks.methods.base import Method, Prepared, Task, Unavailable
from benchmarks.zoo.chain import NotAChain

aten = torch.ops.aten
MATMULS = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_cudnn_attention.default,
}


def segments(task: Task, size: int) -> list[nn.Module]:
    try:
        return task.workload.segments(task.step.model, size)
    except NotAChain as error:
        raise Unavailable(str(error)) from error


def wrap(blocks: Sequence[nn.Module], context: Callable[[], Any] | None = None) -> None:
    """Each block drops what it computed inside and recomputes it when backward comes to it."""
    for block in blocks:
        options = {} if context is None else {"context_fn": context}
        block.forward = functools.partial(  # type: ignore[method-assign]
            checkpoint, block.forward, use_reentrant=False, **options
        )


def per_block(task: Task) -> Prepared:
    wrap(segments(task, 1))
    return Prepared(task.step)


def every_second(task: Task) -> Prepared:
    blocks = segments(task, 1)
    if len(blocks) == 1:
        raise Unavailable("one module runs all time steps: there is no every second one to wrap")
    wrap(blocks[::2])
    return Prepared(task.step)


def sequential(task: Task) -> Prepared:
    """Segments of sqrt(n) blocks; the last is kept whole, as `checkpoint_sequential` does."""
    count = task.workload.segments.count(task.step.model)
    runs = segments(task, max(1, round(math.sqrt(count))))
    wrap(runs[:-1] if len(runs) > 1 else runs)
    return Prepared(task.step)


def selective(task: Task) -> Prepared:
    """Matmuls, convolutions and attention are saved, all else in a block is recomputed."""

    def policy(_context: object, op: object, *_args: object, **_kwargs: object) -> CheckpointPolicy:
        save = op in MATMULS
        return CheckpointPolicy.MUST_SAVE if save else CheckpointPolicy.PREFER_RECOMPUTE

    wrap(segments(task, 1), lambda: create_selective_checkpoint_contexts(policy))
    return Prepared(task.step)


def selective_alternate(task: Task) -> Prepared:
    """As torchtitan's: of the matrix products every second is recomputed, the rest is saved."""

    def context() -> Any:
        seen = {False: 0, True: 0}  # by whether it is a recomputation: both must count alike

        def policy(state: Any, op: object, *_args: object, **_kwargs: object) -> CheckpointPolicy:
            if op not in MATMULS:
                return CheckpointPolicy.PREFER_RECOMPUTE
            if op in (aten.mm.default, aten.addmm.default):
                seen[state.is_recompute] += 1
                if seen[state.is_recompute] % 2 == 0:
                    return CheckpointPolicy.PREFER_RECOMPUTE
            return CheckpointPolicy.MUST_SAVE

        return create_selective_checkpoint_contexts(policy)

    wrap(segments(task, 1), context)
    return Prepared(task.step)


def compiled(task: Task, wrapped: Callable[[Task], Prepared]) -> Prepared:
    """The wrapped model through AOTAutograd, whose partitioner honours what was wrapped."""
    step = wrapped(task).call
    return Prepared(torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=False))


EAGER = (
    Method("checkpoint-block", "torch.utils.checkpoint around every block", per_block),
    Method("checkpoint-second", "torch.utils.checkpoint around every second block", every_second),
    Method("checkpoint-sqrt", "segments of sqrt(n) blocks, as checkpoint_sequential", sequential),
    Method("selective", "selective checkpointing per block, matmuls saved", selective),
    Method("selective-alternate", "the same, every second matmul recomputed", selective_alternate),
)
METHODS = (
    *EAGER,
    *(
        Method(
            f"{method.name}-compiled",
            f"{method.name} under torch.compile, backend aot_eager",
            functools.partial(compiled, wrapped=method.prepare),
        )
        for method in EAGER
    ),
)
