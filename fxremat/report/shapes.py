"""What was planned for which input shape: one line a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fxremat.frontend.history import CompiledGraph, Origin

Shape = tuple[int, ...]


@dataclass(frozen=True)
class PlannedShape:
    """One graph of an optimized model. Memory in bytes, times in seconds a step, predicted.

    `graph` is its index for `explain`. `input_shapes` are those that not all graphs have, which
    parameters' are not. `origin` says how it came by its plan, `calls` how often it has run.
    """

    graph: int
    input_shapes: tuple[Shape, ...]
    budget_bytes: int
    baseline_peak_bytes: int
    planned_peak_bytes: int
    baseline_seconds: float
    extra_seconds: float
    origin: Origin
    calls: int


def planned_shapes(graphs: Sequence[CompiledGraph]) -> tuple[PlannedShape, ...]:
    """All graphs, oldest first."""
    common = Counter(graphs[0].input_shapes) if graphs else Counter[Shape]()
    for graph in graphs:
        common &= Counter(graph.input_shapes)
    return tuple(
        PlannedShape(
            graph=index,
            input_shapes=_beyond(graph.input_shapes, common),
            budget_bytes=graph.plan.budget_bytes,
            baseline_peak_bytes=graph.plan.baseline_peak_bytes,
            planned_peak_bytes=graph.plan.peak_bytes,
            baseline_seconds=graph.plan.baseline_seconds,
            extra_seconds=graph.plan.extra_seconds,
            origin=graph.origin,
            calls=graph.calls.count,
        )
        for index, graph in enumerate(graphs)
    )


def _beyond(shapes: Sequence[Shape], common: Counter[Shape]) -> tuple[Shape, ...]:
    """The shapes of one graph without those that all have, each as often as all have it."""
    left = Counter(common)
    beyond: list[Shape] = []
    for shape in shapes:
        if left[shape]:
            left[shape] -= 1
        else:
            beyond.append(shape)
    return tuple(beyond)
