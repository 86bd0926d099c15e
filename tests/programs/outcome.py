"""A random program in eager and within a budget: every bit, and every byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import fxremat
from benchmarks.measure import same
from tests.numerics.steps import plan_of, tight_budget
from tests.programs.programs import Program, batch

STEPS = 3


@dataclass(frozen=True)
class Step:
    """All that a step leaves: what is returned, gradients, buffers, random state."""

    tensors: dict[str, torch.Tensor | None]


def steps_of(program: Program, compiled: Callable[[Any], Any]) -> tuple[list[Step], Any]:
    """Three steps of a program, and what took them; `compiled` is given its module."""
    module = program.module()
    call = compiled(module)
    torch.manual_seed(7)
    found: list[Step] = []
    for index in range(STEPS):
        module.zero_grad(set_to_none=True)
        x, y = batch(index)
        results = call(x, y)
        results[0].backward()
        tensors: dict[str, torch.Tensor | None] = {"x.grad": x.grad}
        tensors |= {f"output {i}": result.detach().clone() for i, result in enumerate(results)}
        tensors |= {f"{n}.grad": p.grad for n, p in module.named_parameters()}
        tensors |= {n: b.clone() for n, b in module.named_buffers()}
        tensors["random state"] = torch.get_rng_state()
        found.append(Step(tensors))
    module.zero_grad(set_to_none=True)
    return found, call


def differences(expected: list[Step], found: list[Step]) -> set[str]:
    """The tensors that are not the same, bit for bit (NaNs too)."""
    return {
        f"{name} in step {index}"
        for index, (a, b) in enumerate(zip(expected, found, strict=True))
        for name, one in a.tensors.items()
        if not same(one, b.tensors[name])
    }


def check(program: Program, share: float) -> None:
    """Raise where a program's bits are neither eager's nor AOTAutograd's, or it takes too much.

    The budget lies by `share` between the least that a plan needs and what the step takes.
    """
    torch._dynamo.reset()
    budget = tight_budget(program.module(), batch(0), share)
    found, step = steps_of(
        program, lambda m: fxremat.optimize(m, budget=budget, cost="flops", preset="brief")
    )
    expected, _ = steps_of(program, lambda m: m)
    differs = differences(expected, found)
    if differs:
        # Where AOTAutograd has not eager's bits (a zero gradient, not None, of what is returned
        # and is no part of the loss), its own are met: of each tensor by itself, as it draws
        # dropout in bfloat16 otherwise than eager, which we don't.
        backend = "aot_eager_default_partitioner"
        graph, _ = steps_of(
            program, lambda m: torch.compile(m, backend=backend, fullgraph=True, dynamic=False)
        )
        neither = differs & differences(graph, found)
        assert not neither, f"neither eager's nor AOTAutograd's: {sorted(neither)}"
    measured, planned = _measured(step), plan_of(step).peak_bytes
    assert measured <= planned <= budget, f"{measured} B measured, {planned} planned of {budget}"


def _measured(step: Any) -> int:
    """The peak of one more step."""
    x, y = batch(0)
    held: list[Any] = []

    def run() -> None:
        held.append(step(x, y))
        held[0][0].backward()

    return fxremat.measure_peak(run).peak_bytes
