"""What a pair of rewritten graphs will allocate, from their nodes alone.

Both graphs are replayed on blocks in place of tensors: what a unit makes is allocated when it runs
and freed after the last unit that reads it or a view of it. Sizes and workspaces are those that
the writer noted on the nodes; lifetimes, aliases and what is kept for backward are worked out anew,
without the plan.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, cast

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.memory_model import MemoryModel
from fxremat.nodes import MADE_BY_CALL, argument_by_storage, outputs_of, returned, traced_value
from fxremat.rewrite import OUTPUTS, UNIT, WORKSPACE, Rewritten


@dataclass(eq=False)
class _Block:
    """One storage at run time; two are never equal."""

    nbytes: int


# The blocks of a node's result, nested as the result is.
_Blocks = Any


def timeline(rewritten: Rewritten, memory: MemoryModel) -> list[int]:
    """Bytes in use while each node of the forward and then the backward graph runs."""
    inputs = {n.name: _Block(0) for n in rewritten.forward.graph.find_nodes(op="placeholder")}
    # The caller holds what it made for the call until forward ends.
    held_by_caller: dict[_Block, None] = {}
    for node in rewritten.forward.graph.find_nodes(op="placeholder"):
        if MADE_BY_CALL in node.meta:
            inputs[node.name] = _Block(memory.new_tensor(traced_value(node)))
            held_by_caller[inputs[node.name]] = None
    forward = _replay(rewritten.forward.graph, inputs, held_by_caller, memory)
    results = returned(rewritten.forward.graph)
    held_by_user = {
        block: None
        for node in results[: rewritten.num_fwd_outputs]
        if isinstance(node, fx.Node) and memory.holds_outputs
        for block in _each(forward.blocks.get(node))
    }
    by_name = {n.name: forward.blocks.get(n) for n in results if isinstance(n, fx.Node)}
    given: dict[str, _Blocks] = {}
    for node in rewritten.backward.graph.find_nodes(op="placeholder"):
        if torch_hooks.is_tangent(node):
            given[node.name] = _Block(memory.new_tensor(traced_value(node)))
            if memory.is_held(traced_value(node)):
                held_by_user[given[node.name]] = None
        else:
            given[node.name] = by_name[node.name]
    backward = _replay(rewritten.backward.graph, given, held_by_user, memory)
    return [*forward.bytes_in_use, *backward.bytes_in_use]


@dataclass(frozen=True)
class _Replayed:
    blocks: Mapping[fx.Node, _Blocks]
    bytes_in_use: tuple[int, ...]


def _replay(
    graph: fx.Graph,
    inputs: Mapping[str, _Blocks],
    held: Mapping[_Block, None],
    memory: MemoryModel,
) -> _Replayed:
    """Run a graph on blocks instead of tensors; `held` blocks stay whatever the graph does."""
    nodes = list(graph.nodes)
    let_go = _let_go_after(nodes)
    blocks: dict[fx.Node, _Blocks] = {}
    holders: dict[_Block, int] = dict.fromkeys(held, 1)
    live = sum(block.nbytes for block in held)
    in_use: list[int] = []
    for node in nodes:
        if node.op == "placeholder":
            blocks[node] = inputs[node.name]
        elif node.op == "get_attr":
            blocks[node] = _Block(0)
        elif node.op == "call_function":
            blocks[node] = _result_blocks(node, blocks, memory)
        for block in _each(blocks.get(node)):
            live += block.nbytes if not holders.get(block) else 0
            holders[block] = holders.get(block, 0) + 1
        workspace = node.meta[WORKSPACE] if _in_unit(node) else 0
        in_use.append(live + workspace)
        for dead in let_go.get(node, ()):
            for block in _each(blocks.get(dead)):
                holders[block] -= 1
                live -= block.nbytes if not holders[block] else 0
    return _Replayed(blocks, tuple(in_use))


def _let_go_after(nodes: list[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Which nodes' results are dropped after each node; what is returned stays.

    What a unit reads is held until it ends, and so is what it makes.
    """
    ends = {node.meta[UNIT]: node for node in nodes if _in_unit(node)}
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        until = ends[node.meta[UNIT]] if _in_unit(node) else node
        last[node] = until
        for arg in node.all_input_nodes:
            last[arg] = until
    after: dict[fx.Node, list[fx.Node]] = {}
    for node, user in last.items():
        if user.op != "output":
            after.setdefault(user, []).append(node)
    return after


def _in_unit(node: fx.Node) -> bool:
    # A residual's placeholder has the meta of what made it, but runs nothing.
    return node.op == "call_function" and UNIT in node.meta


def _result_blocks(
    node: fx.Node, blocks: Mapping[fx.Node, _Blocks], memory: MemoryModel
) -> _Blocks:
    """The block of each tensor of a node's result; views share their source's."""
    if node.target is operator.getitem:
        source, position = cast("tuple[fx.Node, int]", node.args)
        found = blocks[source]
        return cast("list[_Blocks]", found)[position] if isinstance(found, list) else found
    by_key = {
        key: blocks[arg]
        for key, arg in argument_by_storage(node).items()
        if isinstance(traced_value(arg), torch.Tensor)
    }

    def block(value: Any, nbytes: Any) -> _Blocks:
        if isinstance(value, (tuple, list)):
            sizes: Iterable[Any] = outputs_of(nbytes) if nbytes is not None else repeat(None)
            items = outputs_of(cast("object", value))
            return [block(v, n) for v, n in zip(items, sizes, strict=False)]
        if not isinstance(value, torch.Tensor):
            return None
        key = torch_hooks.storage_key(value)
        if key not in by_key:
            size: int | None = outputs_of(nbytes)[0]
            counted = memory.new_tensor(value)
            by_key[key] = _Block(size if size is not None and counted else counted)
        return by_key[key]

    return block(traced_value(node), node.meta.get(OUTPUTS))


def _each(blocks: _Blocks) -> Iterator[_Block]:
    """The distinct blocks of a result."""
    stack: list[_Blocks] = [blocks]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(cast("list[_Blocks]", item))
        elif isinstance(item, _Block) and id(item) not in seen:
            seen.add(id(item))
            yield item
