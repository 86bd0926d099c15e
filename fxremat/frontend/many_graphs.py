"""Say that a model has been compiled many times over.

Each time takes seconds, which a training loop of many batches spends at each of them and nobody
sees why.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fxremat.annotate.annotate import same_operations
from fxremat.frontend.history import CompiledGraph, Origin

_LOG = logging.getLogger("fxremat")

# So many are no training and evaluation, and no smaller last batch.
_MANY = 8


@dataclass
class ManyGraphs:
    """Says it once a model, by one line of the log."""

    said: bool = False

    def say(self, graphs: Sequence[CompiledGraph]) -> None:
        """Log how many graphs stand for one, of which the newest is the last, if they are many."""
        if self.said or len(graphs) < _MANY:
            return
        alike = _alike(graphs)
        if len(alike) < _MANY:
            return
        self.said = True
        seconds = sum(graph.capture_s + graph.planning_s for graph in alike)
        _LOG.warning(
            "%d graphs were compiled where one would do, which took %.0f s: one for each input "
            "shape and each value of what is no tensor (a number, the length of a list that "
            "forward appends to), and each further one takes as long. Pad inputs to fewer shapes "
            "(fxremat.pad_to_multiple, or pad_to_multiple_of of a data collator); give what "
            "changes at each step as a tensor, and append outside of what is optimized",
            len(alike),
            seconds,
        )


def _alike(graphs: Sequence[CompiledGraph]) -> list[CompiledGraph]:
    """All of a function that is one graph; of several the same ops at other shapes."""
    newest = graphs[-1]
    if newest.origin is not Origin.PART:
        return [graph for graph in graphs if graph.origin is not Origin.PART]
    joint = newest.plan.graph
    same = [graph for graph in graphs if same_operations(graph.plan.graph, joint)]
    return list({graph.input_shapes: graph for graph in same}.values())
