"""What the passes carry: a joint graph as operations over storages.

`capture` makes it, each later pass fills in what it learns of the operations. Nothing here is
changed in place: a pass returns a graph with other operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import fx

from fxremat.memory_model import MemoryModel
from fxremat.nodes import traced_value


@dataclass(frozen=True)
class Storage:
    """A block of memory made by one node.

    `maker` is the node that does it, or the placeholder that brings it; `position` the output of a
    multi-output maker (0 otherwise). `nbytes` is its size as the allocator is asked for it.
    `resident` storages belong to the caller: parameters, buffers, inputs and constants.
    """

    index: int
    maker: fx.Node
    position: int
    nbytes: int
    resident: bool
    device: torch.device


@dataclass(frozen=True)
class Cost:
    """What one run of an operation takes.

    `made_bytes` are the sizes of the storages that it makes; `workspace_bytes` is what it allocates
    beyond them while it runs. `seconds_from` names the cost model that `seconds` come from, or says
    "scaled" where another size was timed. `workspace_measured` is False where it could not be run
    by itself and its workspace is taken to be 0.
    """

    seconds: float
    flops: int
    bytes_moved: int
    made_bytes: Mapping[Storage, int]
    workspace_bytes: int
    seconds_from: str
    workspace_measured: bool


class Form(Enum):
    """How an operation is recomputed."""

    NEVER = "never"
    AS_IS = "as is"
    REPLAY_RNG = "replay the generator state of its first run"
    BATCH_NORM = "without the running statistics"


@dataclass(frozen=True)
class Mode:
    """The `form` of an operation's reruns and, where it is NEVER, the reason (for reports).

    `again` says that backward reads nothing of it that forward made, but makes it again.
    """

    form: Form
    reason: str = ""
    again: bool = False


_UNKNOWN = Cost(0.0, 0, 0, {}, 0, "", False)
_UNDECIDED = Mode(Form.NEVER, "not classified")


@dataclass(frozen=True, eq=False)
class Operation:
    """A piece of work: the nodes that an executor runs as one, and what the passes know of it.

    `reads` and `makes` are the storages that it needs and leaves, each once; what lives only
    between its nodes is in neither. `cost` is set by `annotate`, `mode` by `classify`.
    """

    nodes: tuple[fx.Node, ...]
    reads: tuple[Storage, ...]
    makes: tuple[Storage, ...]
    cost: Cost = _UNKNOWN
    mode: Mode = _UNDECIDED

    @property
    def name(self) -> str:
        """Its nodes' names, in reports and problems."""
        return "+".join(node.name for node in self.nodes)

    @property
    def node(self) -> fx.Node:
        """The node of an operation that has only one."""
        (node,) = self.nodes
        return node

    @property
    def is_annotated(self) -> bool:
        return self.cost is not _UNKNOWN

    @property
    def is_classified(self) -> bool:
        return self.mode is not _UNDECIDED


@dataclass(frozen=True)
class JointGraph:
    """A joint forward and backward graph, read only.

    `operations` are all that does work and is needed, in the order it runs with nothing
    recomputed: forward first (its buffer updates at its end), then backward. `first_backward` is
    the position in it where the backward part begins. `storage_of` maps every tensor-valued node
    to its storage, through whatever views; `made_by` every node that makes storages to those, in
    order of its outputs. `made_by_call` are the inputs that the call itself makes: they are there
    when forward begins, and its caller holds them until it ends.
    `static_lifetime_input_indices` are AOTAutograd's, passed on. `executor` is the name of what
    runs it.
    """

    module: fx.GraphModule
    num_fwd_outputs: int
    operations: tuple[Operation, ...]
    first_backward: int
    storages: tuple[Storage, ...]
    storage_of: Mapping[fx.Node, Storage]
    made_by: Mapping[fx.Node, tuple[Storage, ...]]
    made_by_call: tuple[fx.Node, ...]
    tangents: tuple[fx.Node, ...]
    forward_outputs: tuple[fx.Node, ...]
    gradients: tuple[fx.Node, ...]
    memory: MemoryModel
    static_lifetime_input_indices: tuple[int, ...] = ()
    executor: str = "eager"

    @property
    def device(self) -> torch.device:
        """The device that the step's memory is on."""
        return self.memory.device

    @property
    def forward(self) -> tuple[Operation, ...]:
        """The operations of the forward part."""
        return self.operations[: self.first_backward]

    @property
    def backward(self) -> tuple[Operation, ...]:
        """The operations of the backward part."""
        return self.operations[self.first_backward :]

    @property
    def nodes(self) -> Iterable[fx.Node]:
        """The nodes of all operations, in order."""
        return (node for operation in self.operations for node in operation.nodes)

    @property
    def scalar_tangents(self) -> tuple[fx.Node, ...]:
        """The gradients of scalar losses: the engine's caller holds them while backward runs."""
        return tuple(n for n in self.tangents if self.memory.is_held(traced_value(n)))

    @property
    def parameter_bytes(self) -> int:
        """The parameters and buffers that it reads, each storage once."""
        static = [node for node, is_static in self._inputs() if is_static]
        return sum(storage.nbytes for storage in {self.storage_of[node] for node in static})

    @property
    def batch_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the other inputs, which come anew with each step."""
        batch = [node for node, is_static in self._inputs() if not is_static]
        return tuple(tuple(map(int, traced_value(node).shape)) for node in batch)

    def _inputs(self) -> list[tuple[fx.Node, bool]]:
        """The tensors that forward is given, and whether each is a parameter or a buffer."""
        static = set(self.static_lifetime_input_indices)
        inputs = self.module.graph.find_nodes(op="placeholder")
        return [
            (node, index in static)
            for index, node in enumerate(inputs)
            if node in self.storage_of and node not in self.tangents
        ]

    def storages_read(self, node: fx.Node) -> tuple[Storage, ...]:
        """The storages that a node reads, through whatever views, each once."""
        return tuple(dict.fromkeys(self.storage_of[arg] for arg in self.tensor_args(node)))

    def tensor_args(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """The tensor-valued arguments of a node."""
        return tuple(arg for arg in node.all_input_nodes if arg in self.storage_of)

    def with_operations(self, operations: Sequence[Operation]) -> JointGraph:
        """The same graph with more known of its operations."""
        return replace(self, operations=tuple(operations))
