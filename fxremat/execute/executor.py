"""What runs the rewritten graphs: one protocol, so that nothing else assumes how.

An executor says which nodes it runs as one, what such a unit takes, what counts as memory while it
runs, what a pair of rewritten graphs will allocate, and makes a callable of a graph. Planning,
lowering, rewriting and verifying know operations and these five answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import fx

from fxremat.graph import Cost, JointGraph, Operation
from fxremat.memory_model import MemoryModel
from fxremat.rewrite import Rewritten

Boxed = Callable[[list[Any]], Any]
"""Called with one list of arguments, which it empties as it uses them up."""


class Executor(Protocol):
    """Runs forward and backward graphs, in units of its own."""

    @property
    def name(self) -> str:
        """In options and reports."""
        ...

    def memory(self, device: torch.device) -> MemoryModel:
        """What counts as step memory when it runs on a device."""
        ...

    def units(self, graph: JointGraph) -> JointGraph:
        """The graph with the nodes that it runs as one in one operation.

        The nodes of an operation are all in forward or all in backward. What is read outside of
        it, or returned, is among its `makes`; the rest of what its nodes make is its workspace.
        """
        ...

    def cost(self, unit: Operation, nodes: Sequence[Cost]) -> Cost:
        """What one run of a unit takes, given what each of its nodes takes by itself."""
        ...

    def predict(self, rewritten: Rewritten, memory: MemoryModel) -> Sequence[int]:
        """Bytes in use while each node of the forward and then the backward graph runs.

        From the graphs alone. The nodes of one run of a unit have the same number in
        ``meta[rewrite.UNIT]``.
        """
        ...

    def compile(self, graph: fx.GraphModule) -> Boxed:
        """A callable of one rewritten graph, forward or backward.

        AOTAutograd asks for them one at a time, and may change the graphs until then.
        """
        ...
