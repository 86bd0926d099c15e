"""Say that a loss is computed outside of what is planned.

Most training loops do that, so it is no error. But what such a loss holds between forward and
backward comes on top of the budget, and nobody would see why.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fxremat.nodes import traced_value
from fxremat.plan.plan import Plan

_LOG = logging.getLogger("fxremat")


def outer_loss(plan: Plan) -> str | None:
    """What a plan can't see of a loss, and the way out; None where a loss is inside."""
    graph = plan.graph
    if graph.scalar_tangents:
        return None
    sizes = ", ".join(str(tuple(traced_value(node).shape)) for node in graph.tangents)
    nbytes = sum(storage.nbytes for storage in {graph.storage_of[node] for node in graph.tangents})
    return (
        "The loss is computed outside: the plan can't see what it allocates between forward and "
        f"backward. Gradients of the outputs {sizes} are counted, {nbytes:,} bytes; a loss often "
        "holds as much again, on top of the budget. To bring the loss inside, optimize a function "
        "that returns it."
    )


@dataclass
class OuterLoss:
    """Says it once a model, by one line of the log."""

    said: bool = False

    def say(self, plan: Plan) -> None:
        """Log what a plan can't see, unless something was said before."""
        message = None if self.said else outer_loss(plan)
        if message is not None:
            self.said = True
            _LOG.warning(message)
