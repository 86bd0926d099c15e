"""One broken step: some training steps of it, under a budget and as Dynamo's graphs run untouched.

The reference runs the graphs that Dynamo finds by AOTAutograd's partitioner that recomputes
nothing. Both train from the same parameters, on two batches in turn, each with a seed of its own:
so the last steps, whose peaks are measured, meet what the first ones met, and compile nothing.
"""

# torch's own types are partial.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxremat
from benchmarks.broken.step import BrokenStep
from benchmarks.measure import Step, Tensors, differing, relative_error, rng_state, same
from benchmarks.sweep.check import short
from benchmarks.zoo import Batch, Workload

STEPS, MEASURED = 6, 2  # the last ones are measured
ROUNDS = 3
RATE = 1e-5
BATCHES = 2

OK, OVER, WRONG, REFUSED, CRASH = "ok", "over", "wrong", "refused", "crash"
_STREAMS = ("numpy's", "Python's", "torch's", "the device's")
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
    """A step that was trained.

    `outcomes` are of every step, `peaks` of those that were measured, `graphs` how many Dynamo
    made in each step, `breaks` where it broke them, by its own words and how often it said them.
    """

    step: Step
    outcomes: Sequence[Outcome]
    peaks: Sequence[int]
    graphs: Sequence[int]
    breaks: Mapping[str, int]


def reason_of(error: Exception) -> str:
    """An error in one line that names no folder of a machine."""
    return without_folders(short(error))


def without_folders(text: str) -> str:
    return re.sub(r"/(?:[\w.-]+/)+", "", text)


def as_graphs(module: nn.Module) -> Callable[..., Tensor]:
    return torch.compile(module, backend="aot_eager_default_partitioner", dynamic=False)


def optimized(module: nn.Module, budget: Budget) -> Callable[..., Tensor]:
    return fxremat.optimize(module, budget=budget)


def check(
    broken: BrokenStep,
    budget: Budget,
    size: str = "bench",
    optimize: Optimize = optimized,
    device: str = "cpu",
) -> dict[str, Any]:
    """The row of a step. The references run first, so that every row has their figures.

    A budget that is a fraction is one of the reference's peak, in bytes: what fxremat takes for the
    step memory with nothing recomputed is an estimate until that has run. Beside another device
    than the CPU eager is compared with itself, too, as its kernels may not repeat.
    """
    # Dynamo's limit of graphs for one function would run further ones uncompiled.
    limits = {"recompile_limit": 1 << 16, "accumulated_recompile_limit": 1 << 16}
    with torch._dynamo.config.patch(limits):
        return _check(broken, budget, size, optimize, device)


def _check(
    broken: BrokenStep, budget: Budget, size: str, optimize: Optimize, device: str
) -> dict[str, Any]:
    def made() -> Workload:
        return broken.make(size).to(device)

    eager = train(made(), lambda module: module)
    reference = train(made(), as_graphs)
    ways = {"eager": eager, "reference": reference}
    baseline = max(reference.peaks)
    asked = fxremat.Budget.of(budget).to_bytes(baseline)
    row: dict[str, Any] = {
        "cause": broken.cause,
        "source": broken.source,
        "size": size,
        "budget": budget,
        "graphs": sum(reference.graphs),
        "graphs_by_step": reference.graphs,
        "breaks": reference.breaks,
        "finite": all(map(is_finite, eager.outcomes)),
        "reference_against_eager": difference(eager, reference),
        "eager_peak_bytes": max(eager.peaks),
        "baseline_peak_bytes": baseline,
        "budget_bytes": asked,
    }
    try:
        mine, floor = _within(made, asked, optimize)
    except Exception as error:
        status = REFUSED if isinstance(error, _REFUSALS) else CRASH
        failed = {"status": status, "reason": reason_of(error)}
        return row | failed | seconds(made(), ways)
    bytes_ = floor or asked
    if device != "cpu":
        row |= _against_itself(made, eager, mine)
    row |= {
        "floor_bytes": floor,
        "budget_bytes": bytes_,
        "measured_peak_bytes": max(mine.peaks),
        "fxremat_graphs_by_step": mine.graphs,
        **_explained(mine.step.call),
        **judged(eager, reference, mine, bytes_),
    }
    return row | seconds(made(), {**ways, "fxremat": mine})


def _against_itself(
    made: Callable[[], Workload], eager: Trained, mine: Trained
) -> dict[str, bool | float]:
    """Whether eager's kernels repeat, and how far off gradients are, its own and fxremat's."""
    again = train(made(), lambda module: module)
    return {
        "eager_repeats": difference(eager, again) is None,
        "eager_error": error_of(eager, again),
        "error": error_of(eager, mine),
    }


def error_of(one: Trained, other: Trained) -> float:
    """The largest relative error of a step's gradients."""
    pairs = zip(one.outcomes, other.outcomes, strict=True)
    return max(relative_error(a.gradients, b.gradients) for a, b in pairs)


def _within(
    made: Callable[[], Workload], budget: int, optimize: Optimize
) -> tuple[Trained, int | None]:
    """The step trained within the budget; or within the floor, and this, where that is above.

    Each batch may have a floor of its own.
    """
    floor = 0
    while True:
        try:
            mine = train(made(), lambda module: optimize(module, floor or budget))  # noqa: B023
        except fxremat.BudgetInfeasible as error:
            if error.floor_bytes <= floor:
                raise
            floor = error.floor_bytes
        else:
            return mine, floor or None


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
    """What fxremat says of its plan, where it says anything; of a step of many graphs all of it.

    Extra time and its bound are shares of the step's with nothing recomputed.
    """
    try:
        step = fxremat.explain_step(call)
    except fxremat.FxrematError:
        return _explained_graph(call)
    whole = step.baseline_seconds or 1.0
    return {
        "explained": {
            "calls": len(step.calls),
            "budget_bytes": step.budget_bytes,
            "baseline_peak_bytes": step.baseline_peak_bytes,
            "planned_peak_bytes": step.planned_peak_bytes,
            "outside_peak_bytes": step.outside_peak_bytes,
            "extra": step.extra_seconds / whole,
            "bound": step.lower_bound_seconds / whole,
        }
    }


def _explained_graph(call: object) -> dict[str, Any]:
    try:
        report = fxremat.explain(call)
    except fxremat.FxrematError as error:
        return {"explained": reason_of(error)}
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
    graphs: list[int] = []
    counters.clear()
    for i in range(STEPS):
        batch = prepared(workload, step, i)
        losses: list[Tensor] = []

        def run(batch: Batch = batch, losses: list[Tensor] = losses) -> None:
            losses.append(step.run(batch))

        if i < STEPS - MEASURED:
            run()
        else:
            peaks.append(fxremat.measure_peak(run, device=workload.device).peak_bytes)
        outcomes.append(outcome(module, losses[0], workload.device))
        graphs.append(counters["stats"]["unique_graphs"] - sum(graphs))
        descent.step()
    step.clear()
    breaks = {why.partition("\n")[0]: count for why, count in counters["graph_break"].items()}
    return Trained(step, outcomes, peaks, graphs, breaks)


def prepared(workload: Workload, step: Step, index: int) -> Batch:
    """The batch of a step, everything that it draws from seeded, and no gradients."""
    seed = index % BATCHES
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    step.clear()
    return workload.batch(seed)


def outcome(module: nn.Module, loss: Tensor, device: str = "cpu") -> Outcome:
    gradients = [p.grad for p in module.parameters()]
    return Outcome(
        loss=loss.clone(),
        gradients=[None if each is None else each.clone() for each in gradients],
        buffers=[each.clone() for each in module.buffers()],
        random=random_states(device),
    )


def random_states(device: str = "cpu") -> list[Tensor]:
    """The streams of numpy, Python and torch, the device's as well."""
    _, keys, place, *_ = np.random.get_state()
    return [
        torch.tensor([*map(int, keys), int(place)]),
        torch.tensor(random.getstate()[1]),
        *rng_state(device),
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
            *differing(_STREAMS[: len(a.random)], a.random, b.random),
        ]
        if found:
            return f"step {i}, {found[0]}"
    return None


def is_finite(left: Outcome) -> bool:
    found = [each for each in left.gradients if each is not None]
    return bool(found) and all(bool(each.isfinite().all()) for each in [left.loss, *found])


def seconds(workload: Workload, ways: Mapping[str, Trained]) -> dict[str, Any]:
    """The median time of a step each way, in turn: the processor's, or on a device the wall's."""
    on_cpu = workload.device == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(ROUNDS):
        for name, trained in ways.items():
            batch = prepared(workload, trained.step, i)
            began = clock()
            trained.step.run(batch)
            if not on_cpu:
                torch.cuda.synchronize(workload.device)
            times[name].append(clock() - began)
    return {f"{name}_s": round(statistics.median(found), 4) for name, found in times.items()}
