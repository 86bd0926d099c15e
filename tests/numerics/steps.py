"""Steps of a model and of its untouched twin, compared bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of
from fxremat.plan.plan import Plan
from fxremat_solvers import SOLVERS, RematProblem, SolveOptions, baseline, simulate

Run = Callable[[Any, tuple[Any, ...]], torch.Tensor]


def first(outputs: Any, _batch: object) -> torch.Tensor:
    """The loss of a model that returns it, alone or first."""
    return outputs[0] if isinstance(outputs, (tuple, list)) else outputs


@dataclass(frozen=True)
class Trace:
    """What one step leaves: loss, gradients, buffers, random state."""

    loss: torch.Tensor
    gradients: dict[str, torch.Tensor | None]
    buffers: dict[str, torch.Tensor]
    rng_state: torch.Tensor


def run_steps(
    module: nn.Module,
    call: Callable[..., Any],
    batches: Sequence[tuple[Any, ...]],
    loss_of: Callable[[Any, Any], torch.Tensor] = first,
    seed: int = 7,
) -> list[Trace]:
    """One forward and backward a batch; `module` owns the parameters that `call` uses."""
    torch.manual_seed(seed)
    traces: list[Trace] = []
    for batch in batches:
        module.zero_grad(set_to_none=True)
        loss = loss_of(call(*batch), batch)
        loss.backward()
        traces.append(
            Trace(
                loss.detach().clone(),
                {n: None if p.grad is None else p.grad.clone() for n, p in named(module)},
                {n: b.clone() for n, b in module.named_buffers()},
                torch.get_rng_state(),
            )
        )
    return traces


def named(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(n.replace("_orig_mod.", ""), p) for n, p in module.named_parameters()]


def assert_same(expected: Sequence[Trace], found: Sequence[Trace]) -> None:
    """Every loss, gradient, buffer and random state is bit for bit the same."""
    assert len(expected) == len(found)
    for step, (a, b) in enumerate(zip(expected, found, strict=True)):
        assert torch.equal(a.loss, b.loss), f"step {step}: loss"
        assert a.gradients.keys() == b.gradients.keys()
        for name, gradient in a.gradients.items():
            other = b.gradients[name]
            if gradient is None or other is None:
                assert gradient is other, f"step {step}: gradient of {name} missing on one side"
                continue
            assert gradient.stride() == other.stride(), f"step {step}: layout of {name}"
            assert torch.equal(gradient, other), f"step {step}: gradient of {name}"
        for name, buffer in a.buffers.items():
            assert torch.equal(buffer, b.buffers[name]), f"step {step}: buffer {name}"
        assert torch.equal(a.rng_state, b.rng_state), f"step {step}: random state"


def plan_of(optimized: object, graph: int = -1) -> Plan:
    """The plan that an optimized model runs."""
    return compiled_of(optimized).backend.history.graphs[graph].plan


def recomputations(optimized: object) -> int:
    """How many runs its plan has beyond one of each operation."""
    plan = plan_of(optimized)
    return len(plan.schedule) - len(plan.problem.ops)


def probed(call: Callable[..., Any], batch: tuple[Any, ...]) -> Plan:
    """The plan with nothing recomputed, by tracing alone.

    By FLOPs: nothing is timed, and bytes are the same. They depend on the processor, whose kernels
    take workspaces of their own.
    """
    return plan_of(fxremat.optimize(call, budget=1.0, cost="flops", example_inputs=batch))


def tight_budget(call: Callable[..., Any], batch: tuple[Any, ...], share: float = 0.25) -> int:
    """This share of the way from the least memory to the peak: it fits on any processor.

    0 is the floor, which takes a search; the way to the others begins at what greedy reaches.
    """
    plan = probed(call, batch)
    if share == 0:
        return plan.lowest.peak_bytes
    least, peak = greedy_least(plan.problem), plan.baseline_peak_bytes
    return least + int(share * (peak - least))


def greedy_least(problem: RematProblem) -> int:
    """The lowest peak of greedy's schedules for a few budgets, found at once."""
    least = simulate(problem, baseline(problem)).peak_bytes
    low = 0
    for _ in range(6):
        middle = (low + least) // 2
        tried = SOLVERS["greedy"].run(problem, max(middle, 1), SolveOptions("greedy"))
        low = low if tried.peak_bytes <= middle else middle
        least = min(least, tried.peak_bytes)
    return least


def tightly_optimized(
    call: Any, batch: tuple[Any, ...], share: float = 0.25, **options: Any
) -> Any:
    """Optimized at a tight budget without a search: whatever the plan, it must be right."""
    budget = tight_budget(call, batch, share)
    return fxremat.optimize(call, budget=budget, **{"solver": "greedy", **options})


def check_against_untouched(
    module: nn.Module,
    batches: Sequence[tuple[Any, ...]],
    loss_of: Callable[[Any, Any], torch.Tensor] = first,
    *,
    share: float = 0.25,
    reference: str = "eager",
    **options: Any,
) -> nn.Module:
    """Optimize a copy, run it beside the untouched module, compare; returns the optimized one.

    `share` is that of `tight_budget`. `reference` is "eager", or "aot" for AOTAutograd's own graph
    where that differs from eager.
    """
    untouched, own = copy.deepcopy(module), copy.deepcopy(module)
    call: Callable[..., Any] = untouched
    if reference == "aot":
        backend = "aot_eager_default_partitioner"
        call = torch.compile(untouched, backend=backend, fullgraph=True, dynamic=False)
    expected = run_steps(untouched, call, batches, loss_of)
    optimized = tightly_optimized(own, batches[0], share, **options)
    found = run_steps(own, optimized, batches, loss_of)
    assert_same(expected, found)
    assert recomputations(optimized) > 0, "the budget was met without recomputing anything"
    return optimized


def check_input_gradient(
    untouched: Callable[..., torch.Tensor], call: Callable[..., torch.Tensor], x: torch.Tensor
) -> None:
    """One step of each: loss, the gradient of the input, and the random state are the same bits."""
    found: list[tuple[torch.Tensor, ...]] = []
    for function in (untouched, call):
        leaf = x.clone().requires_grad_()
        torch.manual_seed(1)
        loss = function(leaf)
        loss.backward()
        assert leaf.grad is not None
        found.append((loss.detach(), leaf.grad, torch.get_rng_state()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
