"""torch's own `activation_memory_budget`: a ratio of saved bytes, solved by a knapsack.

On the eager executor the partitioner is torch's min-cut with the budget, and the compilers run its
graphs op by op (the same executor as `aot_eager` and fxremat have). On Inductor it is the setting
as its documentation has it. Solver and runtime estimator are torch's defaults (a dynamic programme
over estimated FLOPs). Its peak isn't monotone in the ratio, so the full run tries several (1 is
`aot_eager`, or `inductor`).
"""

from __future__ import annotations

import torch

from benchmarks.methods.base import Method, Prepared, Task
from benchmarks.methods.plain import use_eager_randomness

POINTS = ("0.9", "0.75", "0.5", "0.25", "0")
INDUCTOR_POINTS = ("0.5", "0.25", "0")


def set_budget(point: str) -> None:
    import torch._functorch.config as config

    config.activation_memory_budget = float(point)


def on_eager(task: Task) -> Prepared:
    from torch._dynamo.backends.common import aot_autograd
    from torch._dynamo.backends.debugging import boxed_nop
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    set_budget(task.point)
    backend = aot_autograd(
        fw_compiler=boxed_nop,
        bw_compiler=boxed_nop,
        partition_fn=min_cut_rematerialization_partition,
        keep_inference_input_mutations=True,
    )
    return Prepared(torch.compile(task.step, backend=backend, fullgraph=True, dynamic=False))


def on_inductor(task: Task) -> Prepared:
    set_budget(task.point)
    use_eager_randomness()
    return Prepared(torch.compile(task.step, fullgraph=True, dynamic=False))


METHODS = (
    Method("torch-budget", "activation_memory_budget on the eager executor", on_eager, POINTS),
    Method(
        "torch-budget-inductor",
        "activation_memory_budget on Inductor",
        on_inductor,
        INDUCTOR_POINTS,
    ),
)
