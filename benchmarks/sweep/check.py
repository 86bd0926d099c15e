"""One model: three steps within 0.6 of its memory, or the floor, held against the untouched step.

References are eager and, where the bits differ from eager's, AOTAutograd's own graph with nothing
recomputed. What goes wrong is tried under torch alone too, so that a row says whose doing it is.

Inductor's kernels round otherwise than eager. Steps of theirs are held against `torch.compile` and,
where its kernels are others, against the same kernels with nothing recomputed; how far those are
from eager is in the row.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

import fxremat
from benchmarks.measure import Comparison, Step, compare
from benchmarks.sweep import outcomes
from benchmarks.zoo import Batch, Workload
from fxremat.frontend.compiled import compiled_of

SHARE = 0.6
STEPS = 3
SECONDS = ("planning", "trace", "search")
Make = Callable[[], Workload]


@dataclass(frozen=True)
class Planned:
    """A compiled step with its plan's figures, all in bytes but the seconds.

    `recomputed` is how many runs the plan has beyond one of each operation. `trace_s` are of
    AOTAutograd's tracing alone, without Dynamo's, and `search_s` of the search for a schedule.
    """

    step: Step
    baseline: int
    budget: int
    planned: int
    floor: int
    operations: int
    recomputed: int
    planning_s: float
    trace_s: float
    search_s: float


def optimized(module: nn.Module, batch: Batch, executor: str = "eager") -> Planned:
    """The step within `SHARE` of its memory, or within the floor where that is above."""
    budget: float | int = SHARE
    try:
        step = _called(module, batch, budget, executor)
    except fxremat.BudgetInfeasible as error:
        step = _called(module, batch, error.floor_bytes, executor)
    graph = compiled_of(step.call).backend.history.graphs[0]
    plan = graph.plan
    return Planned(
        step=step,
        baseline=plan.baseline_peak_bytes,
        budget=plan.budget_bytes,
        planned=plan.peak_bytes,
        floor=fxremat.floor(step.call),
        operations=len(plan.problem.ops),
        recomputed=len(plan.schedule) - len(plan.problem.ops),
        planning_s=graph.planning_s,
        trace_s=graph.capture_s,
        search_s=plan.solve_s,
    )


def _called(module: nn.Module, batch: Batch, budget: float | int, executor: str) -> Step:
    call = fxremat.optimize(module, budget=budget, fullgraph=True, executor=executor)
    step = Step(module, call)
    step.run(batch)
    step.clear()
    return step


def check(
    make: Make,
    optimize: Callable[[nn.Module, Batch], Planned] = optimized,
    executor: str = "eager",
) -> dict[str, Any]:
    """The row of a model that `make` makes anew, always the same."""
    started = time.perf_counter()
    by = functools.partial(optimized, executor=executor) if optimize is optimized else optimize
    row = _check(make, by, kernel_bits if executor == "inductor" else bits)
    return row | {"seconds": round(time.perf_counter() - started, 2), "executor": executor}


def _check(
    make: Make,
    optimize: Callable[[nn.Module, Batch], Planned],
    bits: Callable[[Make, Step], dict[str, Any]],
) -> dict[str, Any]:
    try:
        workload, eager = _fresh(make)
        reason = _unusable(eager, workload)
    except Exception as error:
        reason = short(error)
    if reason is not None:
        return {"outcome": outcomes.NOT_BUILT, "reason": reason}
    try:
        mine = optimize(_fresh(make)[1].module, workload.batch(0))
    except Exception as error:
        return blame(error, make)
    row = figures(mine)
    try:
        row |= bits(make, mine.step)
        row["measured_bytes"] = peak(mine.step, workload)
    except Exception as error:
        return row | {"outcome": outcomes.CRASH, "reason": short(error)}
    if row["outcome"] == outcomes.OK:
        over = _over(row)
        if over is not None:
            row |= {"outcome": outcomes.OVER, "reason": over}
    return row


def figures(mine: Planned) -> dict[str, Any]:
    found = {f"{name}_bytes": getattr(mine, name) for name in ("baseline", "budget", "planned")}
    return found | {
        "floor_bytes": mine.floor,
        "operations": mine.operations,
        "recomputed": mine.recomputed,
        **{f"{name}_s": round(getattr(mine, f"{name}_s"), 3) for name in SECONDS},
    }


def _fresh(make: Make) -> tuple[Workload, Step]:
    workload = make()
    module = workload.step_module()
    return workload, Step(module, module)


def _unusable(eager: Step, workload: Workload) -> str | None:
    """Why an eager step of this model shows nothing."""
    if not any(parameter.requires_grad for parameter in eager.module.parameters()):
        return "has no parameters"
    loss = eager.run(workload.batch(0))
    gradients = [p.grad for p in eager.module.parameters() if p.grad is not None]
    eager.clear()
    if loss.ndim:
        return f"the loss has shape {tuple(loss.shape)}"
    if not gradients:
        return "no gradient arrives"
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        return "gradients are not finite"
    return None


def blame(error: Exception, make: Make) -> dict[str, Any]:
    """The outcome of a model that fxremat doesn't run, by what torch alone does with it."""
    row = {"reason": short(error), "error": type(error).__name__}
    whole = failure(make, "aot_eager")
    if whole is None:
        ours = isinstance(error, fxremat.UnsupportedGraphError)
        refused = ours or isinstance(error, fxremat.GraphBreakError)
        return row | {"outcome": outcomes.REFUSED if refused else outcomes.CRASH}
    row["torch"] = short(whole)
    if isinstance(error, fxremat.GraphBreakError):
        return row | {"outcome": outcomes.REFUSED_BY_DYNAMO}
    return row | {"outcome": outcomes.FAILS_IN_TORCH}


def failure(make: Make, backend: str) -> Exception | None:
    """How a step fails when torch compiles it as one graph; None where it doesn't."""
    torch._dynamo.reset()
    try:
        workload, step = _compiled(make, backend)
        step.run(workload.batch(0))
    except Exception as error:
        return error
    return None


def _compiled(make: Make, backend: str) -> tuple[Workload, Step]:
    workload, step = _fresh(make)
    call = torch.compile(step.module, backend=backend, fullgraph=True, dynamic=False)
    return workload, Step(step.module, call)


def bits(make: Make, mine: Step) -> dict[str, Any]:
    """Whose bits the step has. Modules may count their calls, so references are warmed up, too."""
    _, eager = _fresh(make)
    found = _compared(make, eager, mine)
    if found.equal:
        return {"outcome": outcomes.OK, "reference": "eager"}
    row: dict[str, Any] = {"against_eager": asdict(found)}
    _, again = _fresh(make)
    if not _compared(make, eager, again).equal:
        reason = "two eager steps from one seed differ"
        return row | {"outcome": outcomes.FAILS_IN_TORCH, "reason": reason}
    # The partitioner that recomputes nothing: the other's recomputation may round otherwise.
    _, graph = _compiled(make, "aot_eager_default_partitioner")
    to_graph = _compared(make, graph, mine)
    row["against_aotautograd"] = asdict(to_graph)
    row["aotautograd_against_eager"] = _compared(make, eager, graph).relative_error
    if to_graph.equal:
        return row | {"outcome": outcomes.OK, "reference": "AOTAutograd"}
    return row | {"outcome": outcomes.WRONG, "reason": f"differs in {to_graph.first_difference}"}


def kernel_bits(make: Make, mine: Step) -> dict[str, Any]:
    """Whose bits a step of kernels has: torch.compile's, or those of its kernels, each run once."""
    _, compiled = _compiled(make, "inductor")
    found = _compared(make, compiled, mine)
    if found.equal:
        return {"outcome": outcomes.OK, "reference": "torch.compile"}
    row: dict[str, Any] = {"against_torch_compile": asdict(found)}
    module = _fresh(make)[1].module
    whole = fxremat.optimize(module, budget=2**50, fullgraph=True, executor="inductor")
    to_kernels = _compared(make, Step(module, whole), mine)
    row["against_kernels"] = asdict(to_kernels)
    _, eager = _fresh(make)
    row["kernels_against_eager"] = _compared(make, eager, Step(module, whole)).relative_error
    row["torch_compile_against_eager"] = _compared(make, eager, compiled).relative_error
    if to_kernels.equal:
        return row | {"outcome": outcomes.OK, "reference": "kernels"}
    return row | {"outcome": outcomes.WRONG, "reason": f"differs in {to_kernels.first_difference}"}


def _compared(make: Make, reference: Step, step: Step) -> Comparison:
    """Three steps of both, from the same parameters and buffers on."""
    workload, source = _fresh(make)
    state = source.module.state_dict()
    for each in (reference, step):
        each.run(workload.batch(0))
        each.clear()
        each.module.load_state_dict(state)
    return compare(reference, step, workload.batch, steps=STEPS)


def peak(step: Step, workload: Workload) -> int:
    """The measured peak of a step after some others, gradients cleared."""
    step.clear()
    batch = workload.batch(0)
    measured = fxremat.measure_peak(lambda: step.run(batch)).peak_bytes
    step.clear()
    return measured


def _over(row: dict[str, Any]) -> str | None:
    measured, planned, budget = (row[f"{n}_bytes"] for n in ("measured", "planned", "budget"))
    if planned > budget:
        return f"planned {planned} bytes within a budget of {budget}"
    if measured > planned:
        return f"measured {measured} bytes where {planned} were planned"
    return None


def short(error: Exception) -> str:
    """An error in one line: its first lines that say something."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("from user code", "File "))]
    return f"{type(error).__name__}: {' '.join(said[:6])}"[:400]
