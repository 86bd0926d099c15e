"""When a graph that runs by a plan at once is planned well: the rule of the ski rental.

A shape that comes once is not worth a search; one that comes for ever is. Which it is nobody knows,
so a graph pays for its plan at once, in recomputation, until it has paid what a search takes, and
is then searched for. That takes at most twice the time of whoever knew beforehand (Karlin, Manasse,
Rudolph and Sleator, Algorithmica 1988), and no rule that doesn't draw lots does better.

Limits: what is paid is predicted, and so is what a search takes, by those before. All that the
plan recomputes counts as paid, which a better one may have to pay, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fxremat.frontend.history import CompiledGraph
from fxremat.step.part import Run, Watch

# Shares of the step: what a search must gain to be compiled.
WORTH_IT = 0.01


@dataclass(frozen=True)
class Draft:
    """A graph that runs by a plan at once, and how to plan it well.

    `search_s` is what that is expected to take. `plan_well` returns what runs from then on, and its
    graph; None for what runs already.
    """

    graph: CompiledGraph
    search_s: float
    plan_well: Callable[[], tuple[tuple[Run, Watch] | None, CompiledGraph]]

    @property
    def is_due(self) -> bool:
        """Whether the calls so far have cost as much as a search."""
        return self.graph.calls.count * self.graph.plan.extra_seconds > self.search_s
