"""torch's own `activation_memory_budget`: a ratio of saved bytes, solved by a knapsack.

On the eager executor the partitioner is torch's min-cut with the budget, and the compilers run its
graphs op by op (the same executor as `aot_eager` and fxremat have). On Inductor it is the setting
as its documentation has it. Solver and runtime estimator are torch's defaults (a dynamic programme
over estimated FLOPs). Its peak isn't monotone in the ratio, so the full run tries several (1 is
`aot_eager`, or `inductor`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.methods.base import Method, Prepared, Task
from benchmarks.methods.plain import use_eager_randomness

POINTS = ("0.9", "0.75", "0.5", "0.25", "0")
INDUCTOR_POINTS = ("0.5", "0.25", "0")


def set_budget(point: str) -> None:
    import torch._functorch.config as config

    config.activation_memory_budget = float(point)


def budgeted(backend: Callable[..., Any], ratio: float) -> Callable[..., Any]:
    """A backend with a budget: one of its own, so that Dynamo takes no other's graphs for it."""
    import torch._functorch.config as config

    def compile_graph(module: torch.fx.GraphModule, inputs: Any) -> Any:
        with config.patch(activation_memory_budget=ratio):
            return backend(module, inputs)

    return compile_graph


def eager_backend() -> Callable[..., Any]:
    """torch's min-cut, whose graphs run op by op."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._dynamo.backends.debugging import boxed_nop
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    return aot_autograd(
        fw_compiler=boxed_nop,
        bw_compiler=boxed_nop,
        partition_fn=min_cut_rematerialization_partition,
        keep_inference_input_mutations=True,
    )


def inductor_backend() -> Callable[..., Any]:
    """Inductor, as `torch.compile` has it."""
    from torch._inductor.compile_fx import compile_fx

    return compile_fx


def on_eager(task: Task) -> Prepared:
    set_budget(task.point)
    step = torch.compile(task.step, backend=eager_backend(), fullgraph=True, dynamic=False)
    return Prepared(step)


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
