"""Views of a joint graph: which tensor a node is a view of, and by what way.

`capture` has found whose storage each node lies in (`JointGraph.storage_of`); from that and the
graph follows the rest.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable

from torch import fx

from fxremat.graph import JointGraph
from fxremat.nodes import is_identity, is_tuple


def viewed(graph: JointGraph, node: fx.Node) -> fx.Node:
    """The argument that a view node is a view of."""
    storage = graph.storage_of[node]
    for arg in node.all_input_nodes:
        if graph.storage_of.get(arg) is storage:
            return arg
    raise AssertionError(f"{node} is not a view")


def named(graph: JointGraph, node: fx.Node) -> fx.Node:
    """The node that `node` is another name of (through `detach` and `alias`)."""
    while node.op == "call_function" and is_identity(node):
        node = viewed(graph, node)
    return node


def last_common(graph: JointGraph, nodes: Iterable[fx.Node]) -> fx.Node:
    """The tensor nearest to all of `nodes`, views of one storage, that they are all views of."""
    paths = [_path(graph, node) for node in dict.fromkeys(nodes)]
    shared = paths[0][0]
    for step in zip(*paths, strict=False):
        if any(node is not step[0] for node in step):
            break
        if not is_tuple(step[0]):
            shared = step[0]
    return shared


def _path(graph: JointGraph, node: fx.Node) -> list[fx.Node]:
    """From the tensor that a storage was made as to the given view of it, without other names."""
    storage = graph.storage_of[node]
    path = [node]
    while node is not storage.maker and not (
        node.target is operator.getitem and node.args[0] is storage.maker
    ):
        node = named(graph, viewed(graph, node))
        path.append(node)
    return path[::-1]
