"""A step as a program: Python's source over tensors, as Dynamo traced it.

An operator of torch's takes tensors, numbers and text. As text a step needs no registry that would
keep it alive, and compiled graphs that hold it may be kept in files. Only steps that hold graphs
need one.
"""

from __future__ import annotations

import copy
import functools
import json
import operator
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import fx
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from fxremat import torch_hooks
from fxremat.errors import LoopError
from fxremat.nodes import argument_of, returned

ops = torch.ops.fxremat


@dataclass(frozen=True)
class Program:
    """``source`` defines ``forward(self, number, *state, *parts, *operands)``.

    It returns the next state and the step's outputs, `outputs` of them. The first state are the
    operands `state`, and what is iterated over the operands `xs`, of which a step is given its
    part. `captured` are the operands that a step reads otherwise, too. `passed` are the leaves of
    the state that a step returns as they came, and `shared` has of each output the leaf of the new
    state that it is, -1 for one that is a tensor of its own. One that `holds` graphs is no text.
    """

    source: str
    state: tuple[int, ...]
    xs: tuple[int, ...]
    captured: tuple[int, ...]
    passed: tuple[bool, ...]
    shared: tuple[int, ...]
    holds: bool

    @property
    def outputs(self) -> int:
        """How many tensors a step returns beside the state."""
        return len(self.shared)

    @property
    def text(self) -> str:
        """The program as text."""
        return json.dumps(asdict(self))

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of_text(text: str) -> Program:
        """The program that was made into a text."""
        found = json.loads(text)
        for name in ("state", "xs", "captured", "passed", "shared"):
            found[name] = tuple(found[name])
        return Program(**found)

    @functools.cached_property
    def function(self) -> Callable[..., Sequence[torch.Tensor]]:
        """The step, of its number, the state's leaves, its parts of xs, and all operands."""
        names: dict[str, Any] = {}
        exec(compile(self.source, "<step of a fxremat.loop>", "exec"), names)
        return functools.partial(names["forward"], None)


def program_of(body: fx.GraphModule, operands: Sequence[Any], leaves: int) -> Program:
    """The program of what Dynamo traced of `graph_loop.body`, a step of so many `leaves`."""
    graph = copy.deepcopy(body.graph)
    given = graph.find_nodes(op="placeholder")
    for node, value in zip(given, operands, strict=True):
        if not isinstance(value, torch.Tensor):
            # A size, which is the same in every call of this graph.
            node.replace_all_uses_with(operator.index(value))
            graph.erase_node(node)
    places = {node: place for place, node in enumerate(graph.find_nodes(op="placeholder"))}
    numbers = _marks(graph, ops.loop_number.default)
    states = _marks(graph, ops.loop_leaf.default)
    parts = _marks(graph, ops.loop_part.default)
    state = tuple(places[node.all_input_nodes[0]] for node in states)
    xs = tuple(places[node.all_input_nodes[0]] for node in parts)
    first = next(iter(graph.nodes))
    with graph.inserting_before(first):
        number = graph.placeholder("number")
        own = [graph.placeholder(f"leaf_{k}") for k in range(len(states))]
        read = [graph.placeholder(f"part_{k}") for k in range(len(parts))]
    for old, replacement in (
        *((node, number) for node in numbers),
        *zip(states, own, strict=True),
        *zip(parts, read, strict=True),
    ):
        old.replace_all_uses_with(replacement)
        graph.erase_node(old)
    for check in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
        graph.erase_node(check)
    for node in graph.find_nodes(
        op="call_function", target=torch.ops.higher_order.tag_activation_checkpoint
    ):
        node.target = checkpointed
    results = [_behind_clone(node) for node in returned(graph)]
    count = (len(results) - leaves) // 2
    after, outputs = results[:leaves], results[leaves : leaves + count]
    graph.output_node().args = ((*after, *outputs),)
    graph.eliminate_dead_code()
    return Program(
        source=_source_of(body, graph),
        state=state,
        xs=xs,
        captured=tuple(place for node, place in places.items() if node.users),
        passed=tuple(a is b for a, b in zip(after, own, strict=True)),
        shared=tuple(after.index(node) if node in after else -1 for node in outputs),
        holds=bool(graph.find_nodes(op="get_attr")),
    )


def checkpointed(graph: Callable[..., Any], *arguments: Any, **_options: Any) -> Any:
    """A checkpoint in a step. As Dynamo has it, it would draw other numbers when it runs again."""
    again = cast("Callable[..., Any]", checkpoint)
    return again(graph, *arguments, use_reentrant=False)


# Steps that hold graphs of their own (a loop, a checkpoint, control flow), which are no text. They
# stay for as long as the process, as what was compiled of them may.
_held: dict[str, fx.GraphModule] = {}


def held(key: str) -> Callable[..., Any]:
    """The step that is held under a key. Raises `LoopError`."""
    if key not in _held:
        raise LoopError(
            "a compiled graph was kept in a file, and has a fxremat.loop whose step holds graphs "
            "(a loop, a checkpoint, control flow): that one can't be kept. Turn torch's caches off "
            "(TORCHINDUCTOR_FX_GRAPH_CACHE=0)"
        )
    return functools.partial(_call, key)


def _call(key: str, _self: object, *arguments: Any) -> Any:
    return _held[key](*arguments)


def _source_of(body: fx.GraphModule, graph: fx.Graph) -> str:
    if not graph.find_nodes(op="get_attr"):
        return torch_hooks.source_of(graph)
    key = uuid.uuid4().hex
    _held[key] = fx.GraphModule(body, graph)
    return f"from {__name__} import held\nforward = held({key!r})"


def _marks(graph: fx.Graph, target: Any) -> list[fx.Node]:
    """The marks of a kind, by their places."""
    found: list[fx.Node] = graph.find_nodes(op="call_function", target=target)

    def place(node: fx.Node) -> Any:
        return argument_of(node, "place") or 0

    return sorted(found, key=place)


def _behind_clone(node: Any) -> fx.Node:
    """What a result is a clone of, as each of them is."""
    return node.args[0]
