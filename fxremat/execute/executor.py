"""What runs the rewritten graphs: one protocol, so that nothing else assumes how.

An executor traces a step and says what it runs of it: which nodes it runs as one, what such a unit
takes, what counts as memory while it runs, what a pair of rewritten graphs will allocate. It makes
a callable of a graph. Planning, lowering, rewriting and verifying know operations and its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import fx

from fxremat.errors import VerificationError
from fxremat.graph import Cost, JointGraph, Operation
from fxremat.measure.profile_ops import OpProfiles
from fxremat.memory_model import MemoryModel
from fxremat.rewrite import Rewritten
from fxremat.torch_hooks import GraphCompiler, OnTraced, Partitioner

Boxed = Callable[[list[Any]], Any]
"""Called with one list of arguments, which it empties as it uses them up."""


class Executor(Protocol):
    """Runs forward and backward graphs, in units of its own."""

    @property
    def name(self) -> str:
        """What a report calls it."""
        ...

    def backend(
        self, partitioner: Partitioner, compile_graph: GraphCompiler, on_traced: OnTraced
    ) -> Callable[..., Callable[..., Any]]:
        """A Dynamo backend that traces as this executor needs it, and runs what it is given.

        Before `partitioner` is called, `on_traced` is given what compiles the same graph again.
        """
        ...

    def capture(
        self,
        joint: fx.GraphModule,
        num_fwd_outputs: int,
        static_lifetime_input_indices: tuple[int, ...],
        memory_of: Callable[[torch.device], MemoryModel],
        profiles: OpProfiles,
    ) -> JointGraph:
        """What there is to plan of a joint graph that was traced, an operation a node.

        The traced graph may be changed. Raises `UnsupportedGraphError` for what can't be planned.
        """
        ...

    def memory(self, device: torch.device) -> MemoryModel:
        """What counts as step memory when it runs on a device."""
        ...

    def units(self, graph: JointGraph) -> JointGraph:
        """The graph with the nodes that it runs as one in one operation.

        `check_units` has what must hold. What is not among a unit's `makes` is its workspace.
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


def check_units(before: JointGraph, units: JointGraph) -> None:
    """Raise `VerificationError` unless the units run what the operations did, and leave as much.

    Where an executor plans the same module: each node is in one unit, those of forward in forward
    ones, and what other units read, or the step returns, is among the `makes` of its unit.
    """
    if units.module is not before.module:
        return

    def nodes(operations: Sequence[Operation]) -> list[fx.Node]:
        return [node for operation in operations for node in operation.nodes]

    parts = {
        "forward": (before.forward, units.forward),
        "backward": (before.backward, units.backward),
    }
    for part, operations in parts.items():
        first, second = map(nodes, operations)
        if len(first) != len(second) or set(first) != set(second):
            raise VerificationError(f"the units of {part} don't run the nodes of {part}, each once")
    left = {storage for operation in units.operations for storage in operation.makes}
    read = {storage for operation in units.operations for storage in operation.reads}
    read |= {units.storage_of[node] for node in (*units.forward_outputs, *units.gradients)}
    made = {storage for operation in before.operations for storage in operation.makes}
    missing = (read & made) - left
    if missing:
        names = ", ".join(sorted(storage.maker.name for storage in missing))
        raise VerificationError(f"{names}: read outside of the unit that makes it, which drops it")
