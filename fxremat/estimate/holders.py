"""What is in memory at the peak of a plan, by layer and line of code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fxremat.lower.lowering import Lowering
from fxremat.plan.plan import GIVEN_GRADIENTS, source_line
from fxremat.report.explain import folded, module_path
from fxremat_solvers import Schedule, live_at, simulate


@dataclass(frozen=True)
class Holder:
    """Tensors of one line of code that are held at a peak; of equal layers, together.

    `gradients` says that they are the step's own results, which no plan can drop.
    """

    module: str
    source: str
    nbytes: int
    tensors: int
    gradients: bool


@dataclass(frozen=True)
class Peak:
    """The op at which a plan needs the most, its workspace, and what is held there."""

    op: str
    workspace_bytes: int
    holders: tuple[Holder, ...]


def peak_of(lowering: Lowering, schedule: Schedule) -> Peak:
    """What is held at the peak of a schedule, largest first."""
    problem = lowering.problem
    simulation = simulate(problem, schedule)
    results = {lowering.graph.storage_of[node] for node in lowering.graph.gradients}
    found: dict[tuple[str, str, bool], list[int]] = {}
    for value in live_at(problem, simulation, simulation.peak_step):
        nbytes = problem.values[value].nbytes
        if not nbytes:
            continue
        storage = lowering.storage_of[value]
        if storage is None:
            key = ("", _named(problem.values[value].name), False)
        elif storage in results:
            key = (folded(module_path(storage.maker)), "gradients of parameters", True)
        else:
            source = source_line(storage.maker) or _named(problem.values[value].name)
            key = (folded(module_path(storage.maker)), source, False)
        found.setdefault(key, []).append(nbytes)
    holders = [
        Holder(module, source, sum(sizes), len(sizes), gradients)
        for (module, source, gradients), sizes in found.items()
    ]
    step = simulation.peak_step
    return Peak(
        op=problem.ops[schedule.ops[step]].name,
        workspace_bytes=simulation.runs[step].workspace_bytes,
        holders=tuple(_by_bytes(holders)),
    )


def _named(name: str) -> str:
    return GIVEN_GRADIENTS if name.startswith("tangents_") else name


def _by_bytes(holders: Sequence[Holder]) -> list[Holder]:
    return sorted(holders, key=lambda holder: (-holder.nbytes, holder.module, holder.source))
