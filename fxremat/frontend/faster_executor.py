"""Which executor is the faster one for a step: what `executor="auto"` asks, once a model.

Each executor traces the step, and its ops, or kernels, are timed as they are for a plan. What they
take in all, with nothing recomputed, is compared; nothing of the user's runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from fxremat.errors import SymbolicSizeError, UnsupportedGraphError
from fxremat.execute.executor import Executor
from fxremat.graph import JointGraph

_TIMED = ("measured", "scaled")


@dataclass(frozen=True)
class Weighed:
    """A step in the units of one executor: its seconds, and whether all that counts was timed."""

    seconds: float
    timed: bool

    @staticmethod
    def of(graph: JointGraph) -> Weighed:
        """Of an annotated graph."""
        costs = [operation.cost for operation in graph.operations]
        # Those that move nothing, such as updates of buffers, are not worth timing.
        timed = all(cost.seconds_from in _TIMED for cost in costs if cost.bytes_moved)
        return Weighed(sum(cost.seconds for cost in costs), timed)


@dataclass(frozen=True)
class Choice:
    """The executor that was chosen, and why."""

    executor: Executor
    reason: str


Weigh = Callable[[Executor, fx.GraphModule, Sequence[Any]], "Weighed | None"]
"""Traces a graph by an executor and weighs it; None where there is no backward."""


def choose(
    first: Executor, other: Executor, weigh: Weigh, module: fx.GraphModule, inputs: Sequence[Any]
) -> Choice | None:
    """The faster one of two; the first where nothing tells them apart. None without a backward.

    Where `first` can't run the graph it is `other`, with the reason.
    """
    try:
        one = weigh(first, module, inputs)
    except SymbolicSizeError:
        raise
    except UnsupportedGraphError as error:
        return Choice(other, str(error))
    if one is None:
        return None
    two = weigh(other, module, inputs)
    if two is None or not (one.timed and two.timed):
        return Choice(first, "not compared: what they take wasn't measured")
    chosen = first if one.seconds <= two.seconds else other
    times = {first.name: one.seconds, other.name: two.seconds}
    said = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in times.items())
    return Choice(chosen, f"the faster one with nothing recomputed: {said}, by measured times")
