"""fxremat at a budget, by solver.

A point is a fraction of the step memory with nothing recomputed ("0.5"), the smallest budget that
the solver can meet ("floor"), a multiple of it ("1.1*floor"), or bytes measured elsewhere
("=checkpoint-block", "=eager/2"), which the runner looks up.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.measure import thinned
from benchmarks.methods.base import Method, Prepared, Task, Unavailable
from benchmarks.zoo import Batch

POINTS = ("1", "0.9", "0.7", "0.5", "0.4", "0.3", "floor")
REFERENCES = ("=checkpoint-block", "=checkpoint-block-compiled", "=eager/2")
# docs/solver-results.md compares single solvers over all budgets; here what their plans take.
ABLATION = ("0.5",)


def prepare(task: Task, solver: str) -> Prepared:
    try:
        import fxremat
        from fxremat_solvers import SOLVERS
    except ImportError as error:
        raise Unavailable(f"fxremat can't be imported: {error}") from error
    if solver not in SOLVERS:
        raise Unavailable(f"this fxremat has no solver {solver!r}")
    batch = task.workload.batch(0)
    start = time.perf_counter()
    try:
        budget = budget_of(task, solver)
        optimized = fxremat.optimize(task.step, budget=budget, solver=solver, example_inputs=batch)
    except fxremat.BudgetInfeasible as error:
        raise Unavailable(
            f"infeasible: {error.budget_bytes} bytes is under the floor, {error.floor_bytes}"
        ) from error
    compile_s = time.perf_counter() - start
    return Prepared(optimized, functools.partial(facts, optimized, compile_s))


def budget_of(task: Task, solver: str) -> int | float:
    if task.budget_bytes is not None:
        return task.budget_bytes
    factor, _, name = task.point.rpartition("*")
    if name == "floor":
        return int(float(factor or 1) * floor_of(task.step, task.workload.batch(0), solver))
    return float(task.point)


def floor_of(step: torch.nn.Module, batch: Batch, solver: str = "auto") -> int:
    """The smallest budget that can be met, as the error for an impossible one says."""
    import fxremat

    try:
        fxremat.optimize(step, budget="1B", solver=solver, example_inputs=batch)
    except fxremat.BudgetInfeasible as error:
        return error.floor_bytes
    raise RuntimeError("a budget of one byte was met")


def facts(optimized: Any, compile_s: float) -> Mapping[str, Any]:
    """The plan's own figures, beside which the measured ones are put."""
    from fxremat.frontend.compiled import compiled_of
    from fxremat_solvers import simulate

    graph = compiled_of(optimized).backend.history.graphs[0]
    plan = graph.plan
    predicted = simulate(plan.problem, plan.solution.schedule).running_bytes
    return {
        "budget_bytes": plan.budget_bytes,
        "predicted_peak_bytes": plan.peak_bytes,
        "baseline_peak_bytes": plan.baseline_peak_bytes,
        "predicted_timeline": thinned(predicted, 400),
        "predicted_extra": plan.extra_seconds / plan.problem.baseline_cost,
        "lower_bound_extra": _bound(plan),
        "status": str(plan.solution.status),
        "solver": plan.solution.solver,
        "ops": len(plan.problem.ops),
        "compile_s": compile_s,
        "capture_s": graph.capture_s,
        "planning_s": graph.planning_s,
        "solve_s": plan.solve_s,
    }


def _bound(plan: Any) -> float | None:
    bound = plan.solution.lower_bound
    return None if bound is None else bound / plan.problem.baseline_cost - 1


def method(solver: str, points: tuple[str, ...]) -> Method:
    name = "fxremat" if solver == "auto" else f"fxremat-{solver}"
    about = f"fxremat, solver {solver!r}"
    return Method(name, about, functools.partial(prepare, solver=solver), points)


def single_solvers() -> tuple[str, ...]:
    """The solvers to set against `auto`: those for graphs of hundreds of ops."""
    try:
        from fxremat_solvers import SOLVERS
    except ImportError:
        return ()
    return tuple(
        name
        for name, solver in SOLVERS.items()
        if not solver.has_presets and not solver.needs_chain and solver.most_ops > 100
    )


METHODS = (
    method("auto", (*POINTS, *REFERENCES)),
    *(method(solver, ABLATION) for solver in single_solvers()),
)
