"""The graphs that were planned for one function, for as long as what was compiled of them lives."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fxremat.annotate.annotate import same_operations
from fxremat.graph import JointGraph
from fxremat.plan.plan import Plan
from fxremat.torch_hooks import CompileAgain
from fxremat_solvers import RematProblem

# How many of the nearest graphs give their schedules to a new one.
_NEIGHBOURS = 4

_numbers = itertools.count()


class Origin(StrEnum):
    """How a graph came by its plan."""

    SEARCHED = "searched"
    """By the solver that the options name, over measured costs."""
    QUICK = "quick"
    """At once, from the plans of other sizes; it is searched for once that is worth it."""
    KEPT = "quick, kept"
    """At once; a search since then has failed, or found nothing much better."""
    PART = "part"
    """One of several graphs of a step: by the least plan at first, then by the step's."""


@dataclass
class Calls:
    """How often a graph ran."""

    count: int = 0


@dataclass(frozen=True, eq=False)
class CompiledGraph:
    """One training graph as it was planned, and compiled where it has been called since.

    `capture_s` is the time that AOTAutograd took to trace it, `planning_s` all that fxremat added,
    and `seconds` what each pass of that took. `again` compiles it by another plan. `why_executor`
    is empty where the user named the executor. `number` counts the graphs of the process; one that
    is planned anew keeps it.
    """

    plan: Plan
    input_shapes: tuple[tuple[int, ...], ...]
    capture_s: float
    planning_s: float
    seconds: Mapping[str, float]
    again: CompileAgain
    origin: Origin = Origin.SEARCHED
    why_executor: str = ""
    calls: Calls = field(default_factory=Calls)
    number: int = field(default_factory=lambda: next(_numbers))


@dataclass
class History:
    """What one backend planned.

    A compiled graph is held by what runs it, and gone when Dynamo lets go of that; one that was
    planned ahead is held here until it is compiled. `largest_step_bytes` is the largest step
    memory, with nothing recomputed, of all steps seen: what a budget that is a fraction is a
    fraction of.
    """

    largest_step_bytes: int = 0
    _ahead: list[CompiledGraph] = field(default_factory=list[CompiledGraph])
    _all: list[weakref.ref[CompiledGraph]] = field(
        default_factory=list["weakref.ref[CompiledGraph]"]
    )

    @property
    def graphs(self) -> list[CompiledGraph]:
        """All that are alive, oldest first."""
        return [graph for graph in (each() for each in self._all) if graph is not None]

    def add(self, graph: CompiledGraph, *, ahead: bool) -> None:
        """Note a graph: planned ahead, or compiled and held by what runs it."""
        self._all = [each for each in self._all if each() is not None]
        self._all.append(weakref.ref(graph))
        if ahead:
            self._ahead.append(graph)

    def replace(self, old: CompiledGraph, new: CompiledGraph) -> None:
        """Put another plan of a compiled graph in the place of its first."""
        self._all = [weakref.ref(new) if each() is old else each for each in self._all]

    def neighbours(self, graph: JointGraph) -> list[CompiledGraph]:
        """Searched graphs of the same operations at other sizes: a few, the nearest first."""
        nbytes = _made_bytes(graph)

        def distance(other: CompiledGraph) -> float:
            return abs(math.log((nbytes + 1) / (_made_bytes(other.plan.graph) + 1)))

        found: list[CompiledGraph] = []
        searched = [each for each in self.graphs if each.origin is Origin.SEARCHED]
        for other in sorted(searched, key=distance):
            if len(found) < _NEIGHBOURS and same_operations(graph, other.plan.graph):
                found.append(other)
        return found

    def was_planned_ahead(self, input_shapes: tuple[tuple[int, ...], ...]) -> bool:
        """Whether there is a plan for inputs of these shapes that waits to be compiled."""
        return any(graph.input_shapes == input_shapes for graph in self._ahead)

    def take_ahead(
        self, problem: RematProblem, input_shapes: tuple[tuple[int, ...], ...]
    ) -> Plan | None:
        """The plan that was made ahead for a problem that is compiled now; None without.

        A plan for inputs of these shapes is let go, and made anew, where the problem is another by
        now: ops that there was no time to time have been timed since.
        """
        for graph in self._ahead:
            if graph.input_shapes == input_shapes:
                self._ahead.remove(graph)
                return graph.plan if graph.plan.problem == problem else None
        return None


def _made_bytes(graph: JointGraph) -> int:
    return sum(storage.nbytes for storage in graph.storages if not storage.resident)
