"""The step without a budget: eager, AOTAutograd's graph run op by op, and Inductor."""

from __future__ import annotations

import torch

from benchmarks.methods.base import Method, Prepared, Task, Unavailable


def eager(task: Task) -> Prepared:
    return Prepared(task.step)


def aot_eager(task: Task) -> Prepared:
    return Prepared(torch.compile(task.step, backend="aot_eager", fullgraph=True, dynamic=False))


def aot_default(task: Task) -> Prepared:
    backend = "aot_eager_default_partitioner"
    return Prepared(torch.compile(task.step, backend=backend, fullgraph=True, dynamic=False))


def inductor(task: Task) -> Prepared:
    use_eager_randomness()
    return Prepared(torch.compile(task.step, fullgraph=True, dynamic=False))


def use_eager_randomness() -> None:
    """Inductor draws the same random numbers as eager, so that its gradients can be compared."""
    import torch._inductor.config as config
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    config.fallback_random = True
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise Unavailable("Inductor needs a C++ compiler and found none") from error


METHODS = (
    Method("eager", "the untouched step", eager),
    Method("aot_default", "AOTAutograd's graph run op by op, nothing recomputed", aot_default),
    Method("aot_eager", "the same, torch's min-cut recomputing what is cheap", aot_eager),
    Method("inductor", "torch.compile's default backend, eager's random numbers", inductor),
)
