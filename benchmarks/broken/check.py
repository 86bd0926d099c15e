"""One broken step: some training steps of it, under a budget and as Dynamo's graphs run untouched.

The reference runs the graphs that Dynamo finds by AOTAutograd's partitioner that recomputes
nothing. Both train from the same parameters, on two batches in turn, each with a seed of its own:
so the last steps, whose peaks are measured, meet what the first ones met, and compile nothing.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, fx, nn
from torch._dynamo.backends.registry import lookup_backend
from torch._dynamo.utils import counters

import fxremat
from benchmarks.broken.step import BrokenStep
from benchmarks.measure import Step, Tensors, differing, same
from benchmarks.sweep.check import short
from benchmarks.zoo import Batch, Workload

STEPS, MEASURED = 4, 2  # the last ones are measured
ROUNDS = 3
RATE = 1e-4
BATCHES = 2

OK, OVER, WRONG, REFUSED, CRASH = "ok", "over", "wrong", "refused", "crash"
Budget = float | int | str
Optimize = Callable[[nn.Module, Budget], Callable[..., Tensor]]
# What fxremat says it can't do; anything else that is raised is a defect.
_REFUSALS = (fxremat.GraphBreakError, fxremat.UnsupportedGraphError, fxremat.BudgetInfeasible)


@dataclass(frozen=True)
class Outcome:
    """What a step leaves behind."""

    loss: Tensor
    gradients: Tensors
    buffers: Tensors
    random: Tensors


@dataclass(frozen=True)
class Trained:
    """A step that was trained: what every step left, and the peaks of those that were measured."""

    step: Step
    outcomes: Sequence[Outcome]
    peaks: Sequence[int]


@dataclass
class Counted:
    """A backend of Dynamo's that counts the graphs it is given."""

    backend: Callable[..., Any]
    graphs: int = 0

    def __call__(self, graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        self.graphs += 1
        return self.backend(graph, inputs)


def optimized(module: nn.Module, budget: Budget) -> Callable[..., Tensor]:
    return fxremat.optimize(module, budget=budget)


def check(
    broken: BrokenStep, budget: Budget, size: str = "bench", optimize: Optimize = optimized
) -> dict[str, Any]:
    """The row of a step. The references run first, so that every row has their figures."""
    # Dynamo's limit of graphs for one function would run further ones uncompiled.
    limits = {"recompile_limit": 1 << 16, "accumulated_recompile_limit": 1 << 16}
    with torch._dynamo.config.patch(limits):
        return _check(broken, budget, size, optimize)


def _check(broken: BrokenStep, budget: Budget, size: str, optimize: Optimize) -> dict[str, Any]:
    backend = Counted(lookup_backend("aot_eager_default_partitioner"))

    def as_graphs(module: nn.Module) -> Callable[..., Tensor]:
        return torch.compile(module, backend=backend, dynamic=False)

    eager = train(broken.make(size), lambda module: module)
    counters.clear()
    reference = train(broken.make(size), as_graphs)
    ways = {"eager": eager, "reference": reference}
    baseline = max(reference.peaks)
    row = {
        "cause": broken.cause,
        "source": broken.source,
        "size": size,
        "asked": budget,
        "graphs": backend.graphs,
        "breaks": sum(counters["graph_break"].values()),
        "finite": all(map(is_finite, eager.outcomes)),
        "reference_against_eager": difference(eager, reference),
        "eager_peak_bytes": max(eager.peaks),
        "baseline_peak_bytes": baseline,
        "budget_bytes": fxremat.Budget.of(budget).to_bytes(baseline),
    }
    try:
        mine, floor = _within(broken, size, budget, optimize)
    except Exception as error:
        status = REFUSED if isinstance(error, _REFUSALS) else CRASH
        failed = {"status": status, "reason": short(error)}
        return row | failed | seconds(broken.make(size), ways)
    row |= {
        "floor_bytes": floor,
        "budget_bytes": floor or row["budget_bytes"],
        "measured_peak_bytes": max(mine.peaks),
        **_explained(mine.step.call),
        **judged(eager, reference, mine, floor or row["budget_bytes"]),
    }
    return row | seconds(broken.make(size), {**ways, "fxremat": mine})


def _within(
    broken: BrokenStep, size: str, budget: Budget, optimize: Optimize
) -> tuple[Trained, int | None]:
    """The step trained within the budget; or within the floor, and this, where that is above."""
    try:
        return train(broken.make(size), lambda module: optimize(module, budget)), None
    except fxremat.BudgetInfeasible as error:
        floor = error.floor_bytes
    return train(broken.make(size), lambda module: optimize(module, floor)), floor


def judged(eager: Trained, reference: Trained, mine: Trained, budget: int) -> dict[str, Any]:
    """Whether the steps have the bits of a reference, and their peaks keep within the budget."""
    to_eager, to_reference = difference(eager, mine), difference(reference, mine)
    found = {"against_eager": to_eager, "against_reference": to_reference}
    if to_eager and to_reference:
        return found | {"status": WRONG, "reason": f"another {to_reference}"}
    peak = max(mine.peaks)
    if peak > budget:
        reason = f"measured {peak} bytes, {peak / budget - 1:.2%} more than {budget}"
        return found | {"status": OVER, "reason": reason}
    return found | {"status": OK}


def _explained(call: object) -> dict[str, Any]:
    """What fxremat says of its plan, where it says anything."""
    try:
        report = fxremat.explain(call)
    except fxremat.FxrematError as error:
        return {"explained": short(error)}
    figures = ("budget_bytes", "baseline_peak_bytes", "planned_peak_bytes", "origin", "notes")
    said = {name: getattr(report, name) for name in figures}
    return {"explained": {**said, "graphs": len(report.shapes)}}


def train(workload: Workload, optimize: Callable[[nn.Module], Callable[..., Tensor]]) -> Trained:
    """Trains the workload's model for some steps, as `optimize` makes it."""
    module = workload.step_module()
    step = Step(module, optimize(module))
    descent = torch.optim.SGD(module.parameters(), lr=RATE)
    outcomes: list[Outcome] = []
    peaks: list[int] = []
    for i in range(STEPS):
        batch = prepared(workload, step, i)
        losses: list[Tensor] = []

        def run(batch: Batch = batch, losses: list[Tensor] = losses) -> None:
            losses.append(step.run(batch))

        if i < STEPS - MEASURED:
            run()
        else:
            peaks.append(fxremat.measure_peak(run).peak_bytes)
        outcomes.append(outcome(module, losses[0]))
        descent.step()
    step.clear()
    return Trained(step, outcomes, peaks)


def prepared(workload: Workload, step: Step, index: int) -> Batch:
    """The batch of a step, everything that it draws from seeded, and no gradients."""
    seed = index % BATCHES
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    step.clear()
    return workload.batch(seed)


def outcome(module: nn.Module, loss: Tensor) -> Outcome:
    gradients = [p.grad for p in module.parameters()]
    return Outcome(
        loss=loss.clone(),
        gradients=[None if each is None else each.clone() for each in gradients],
        buffers=[each.clone() for each in module.buffers()],
        random=random_states(),
    )


def random_states() -> list[Tensor]:
    """The streams of torch, numpy and Python."""
    _, keys, place, *_ = np.random.get_state()
    return [
        torch.get_rng_state(),
        torch.tensor([*map(int, keys), int(place)]),
        torch.tensor(random.getstate()[1]),
    ]


def difference(one: Trained, other: Trained) -> str | None:
    """The first thing that isn't bit for bit the same; None where all is."""
    parameters = [name for name, _ in one.step.module.named_parameters()]
    buffers = [name for name, _ in one.step.module.named_buffers()]
    for i, (a, b) in enumerate(zip(one.outcomes, other.outcomes, strict=True), start=1):
        found = [
            *([] if same(a.loss, b.loss) else ["loss"]),
            *(f"gradient of {each}" for each in differing(parameters, a.gradients, b.gradients)),
            *(f"buffer {each}" for each in differing(buffers, a.buffers, b.buffers)),
            *differing(["torch's", "numpy's", "Python's"], a.random, b.random),
        ]
        if found:
            return f"step {i}, {found[0]}"
    return None


def is_finite(left: Outcome) -> bool:
    found = [each for each in left.gradients if each is not None]
    return bool(found) and all(bool(each.isfinite().all()) for each in [left.loss, *found])


def seconds(workload: Workload, ways: Mapping[str, Trained]) -> dict[str, Any]:
    """The median processor time of a step each way, measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(ROUNDS):
        for name, trained in ways.items():
            batch = prepared(workload, trained.step, i)
            began = time.process_time()
            trained.step.run(batch)
            times[name].append(time.process_time() - began)
    return {f"{name}_s": round(statistics.median(found), 4) for name, found in times.items()}
