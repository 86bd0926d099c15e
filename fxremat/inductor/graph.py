"""Forward and backward of compiled kernels as one joint graph, with a node a piece.

Its placeholders and what it returns are those of the joint graph that was compiled, so that all
that plans, writes and checks joint graphs of ops does so with it. What backward takes of forward is
looked up there: which of it is kept, and which is made again, is what will be planned.
"""

from __future__ import annotations

import ast
import copy
import functools
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.errors import UnsupportedGraphError
from fxremat.inductor.pieces import Alias, Piece, names_in, pieces_of
from fxremat.inductor_hooks import ALIGNMENT, Pair, Wrapper, copy_aligned, reinterpret
from fxremat.kernel import Kernel
from fxremat.nodes import returned

# The key in a placeholder's meta that says that its memory must begin at a multiple of `ALIGNMENT`.
ALIGNED = "fxremat_aligned"
# What reports read of an op: where it comes from.
WHERE = ("stack_trace", "nn_module_stack", "fwd_nn_module_stack")
# The key in the module's meta of what was compiled.
PAIR = "fxremat_compiled_pair"


def kernel_graph(joint: fx.GraphModule, pair: Pair, device_type: str) -> fx.GraphModule:
    """The joint graph of the kernels that a joint graph was compiled to."""
    graph = fx.Graph()
    placeholders: dict[str, fx.Node] = {}
    primals: list[fx.Node] = []
    tangents: list[fx.Node] = []
    for node in joint.graph.find_nodes(op="placeholder"):
        # Named as AOTAutograd knows them.
        new = graph.placeholder(node.name)
        new.target = node.target
        new.meta = copy.copy(node.meta)
        placeholders[new.name] = new
        (tangents if torch_hooks.is_tangent(node) else primals).append(new)
    if len(primals) != len(pair.forward.inputs) or len(tangents) != len(pair.tangents):
        raise UnsupportedGraphError(
            "Inductor compiled a graph with other inputs than were traced: its kernels can't be "
            "planned; use executor='eager'"
        )
    example = next(node for node in primals if isinstance(node.meta.get("val"), torch.Tensor))
    fake_mode = torch_hooks.fake_mode_of(example)
    assert fake_mode is not None
    with fake_mode, torch.no_grad():
        forward = _Half(graph, pair.forward, dict(zip(pair.forward.inputs, primals, strict=True)))
        results = forward.write(device_type, "is_forward")
        saved = results[pair.num_fwd_outputs :]
        given = dict(zip(pair.backward.inputs, [*saved, *tangents], strict=True))
        gradients = _Half(graph, pair.backward, given).write(device_type, "is_backward")
    before = next(iter(joint.graph.find_nodes(op="output")))
    output = graph.output((*results[: pair.num_fwd_outputs], *gradients))
    output.meta = copy.copy(before.meta)
    if len(returned(graph)) != len(returned(joint.graph)):
        raise UnsupportedGraphError(
            "Inductor compiled a graph with other outputs than were traced: its kernels can't be "
            "planned; use executor='eager'"
        )
    kernels = torch_hooks.lazy_graph_module(joint, graph)
    # As long as something plans or runs them, they needn't be compiled again.
    kernels.meta[PAIR] = pair
    return kernels


@dataclass
class _Half:
    """Writes the pieces of one wrapper; `nodes` are those that stand for its names."""

    graph: fx.Graph
    wrapper: Wrapper
    nodes: dict[str, Any]
    views: dict[str, fx.Node] = field(default_factory=dict[str, fx.Node])
    tag: str = ""

    def write(self, device_type: str, tag: str) -> list[Any]:
        """All pieces, and what the wrapper returns."""
        self.tag = tag
        for position in self.wrapper.aligned:
            self._align(self.wrapper.inputs[position])
        pieces, aliases = pieces_of(self.wrapper, device_type)
        outputs = [name for text in self.wrapper.outputs for name in names_in(text)]
        needed = {name for piece in pieces for name in piece.reads}
        needed |= {aliases[name].base if name in aliases else name for name in outputs}
        stream = _streams(self.wrapper)
        for piece in pieces:
            self._write(piece, needed, stream)
        return [self._result(text, aliases) for text in self.wrapper.outputs]

    def _write(self, piece: Piece, needed: set[str], streams: dict[str, str]) -> None:
        # What backward reads of another name for the same thing is one argument.
        inputs = [name for name in piece.reads if isinstance(self.nodes[name], fx.Node)]
        makes = [name for name in piece.makes if name in needed]
        text = [
            *(line for name, line in streams.items() if any(name in each for each in piece.text)),
            *piece.text,
        ]
        run = _function(piece.name, inputs, text, makes, self.wrapper.namespace)
        kernel = Kernel(
            name=piece.name,
            run=run,
            key=f"{piece.key}->{[list(piece.makes).index(name) for name in makes]}",
            writes=tuple(inputs.index(name) for name in piece.changes),
            once=piece.once,
            ordered=piece.ordered,
            draws=piece.draws,
            measurable=piece.measurable and not piece.ordered,
            in_place=tuple(
                (makes.index(made), inputs.index(over))
                for made, over in piece.in_place.items()
                if made in makes and over in inputs and made in _allocated(text)
            ),
            run_in_place=functools.partial(
                _in_place, piece.name, inputs, text, makes, self.wrapper.namespace
            ),
        )
        fakes = _fakes(piece, {name: self.nodes[name].meta["val"] for name in inputs}, self.wrapper)
        made = [fakes[name] for name in makes]
        node = self._node(kernel, [self.nodes[name] for name in inputs], piece.name)
        node.meta["val"] = made[0] if len(made) == 1 else tuple(made)
        if piece.origin is not None:
            about = piece.origin.meta
            node.meta.update({key: about[key] for key in WHERE if key in about})
        if len(made) == 1:
            self.nodes[makes[0]] = node
            return
        for position, name in enumerate(makes):
            item = self._node(operator.getitem, [node, position], f"{piece.name}_{name}")
            item.meta["val"] = made[position]
            self.nodes[name] = item

    def _align(self, name: str) -> None:
        """See to it that an argument begins where the kernels take it to.

        What the caller brings is looked at when it comes; where else a part of a buffer begins is
        known now.
        """
        node = self.nodes[name]
        if not isinstance(node, fx.Node):
            return
        if node.op == "placeholder":
            node.meta[ALIGNED] = True
            return
        value: torch.Tensor = node.meta["val"]
        if int(value.storage_offset()) * value.element_size() % ALIGNMENT:
            kernel = Kernel("copy_aligned", copy_aligned, "copy_aligned")
            copied = self._node(kernel, [node], f"{node.name}_aligned")
            copied.meta["val"] = copy_aligned(value)
            self.nodes[name] = copied

    def _node(self, target: Any, args: Iterable[Any], name: str) -> fx.Node:
        node = self.graph.create_node("call_function", target, tuple(args), {}, name=name)
        node.meta["partitioner_tag"] = self.tag
        return node

    def _result(self, text: str, aliases: Mapping[str, Alias]) -> Any:
        """The node of what a wrapper returns: a buffer, an input, or a part of one."""
        if text in self.nodes:
            return self.nodes[text]
        names = [name for name in names_in(text) if name in self.nodes or name in aliases]
        if not names and text in ("None", "True", "False"):
            return ast.literal_eval(text)
        if len(names) != 1:
            raise UnsupportedGraphError(
                f"Inductor's wrapper returns {text}, which can't be planned: use executor='eager'"
            )
        if text not in self.views:
            alias = aliases.get(names[0], Alias((), names[0]))
            source = self.nodes[alias.base]
            lines = [*alias.lines, f"made = {text}"]
            run = _function("view", [alias.base], lines, ["made"], self.wrapper.namespace)
            kernel = Kernel("view", run, "\n".join(lines), is_view=True)
            node = self._node(kernel, [source], f"{alias.base}_view")
            scope = {alias.base: source.meta["val"]}
            exec("\n".join(lines), _fake_namespace(self.wrapper), scope)
            node.meta["val"] = scope["made"]
            self.views[text] = node
        return self.views[text]


def _streams(wrapper: Wrapper) -> dict[str, str]:
    """The lines that ask for a stream, by the name that they give it."""
    found: dict[str, str] = {}
    for line in wrapper.lines:
        for text in line.text:
            name, _, call = text.partition(" = ")
            if call.startswith("get_raw_stream("):
                found[name] = text
    return found


def _function(
    name: str, inputs: list[str], text: list[str], makes: list[str], namespace: dict[str, Any]
) -> Any:
    """A function of these lines, over the kernels of a compiled module."""
    lines = [each for block in text for each in block.split("\n")]
    result = f"({''.join(f'{made}, ' for made in makes)})" if len(makes) != 1 else makes[0]
    body = "\n    ".join([*lines, f"return {result}"])
    code = f"def {name}({', '.join(inputs)}):\n    {body}\n"
    scope: dict[str, Any] = {}
    try:
        compiled = compile(code, f"<inductor's {name}>", "exec")
    except SyntaxError as error:
        raise UnsupportedGraphError(
            f"Inductor calls the kernel {name} in lines that don't stand alone ({error}), which "
            "can't be planned: use executor='eager'"
        ) from error
    exec(compiled, namespace, scope)
    return scope[name]


_ALLOCATION = re.compile(r"^(\w+) = empty_strided_\w+\((.*), torch\.\w+\)$")


def _allocated(text: list[str]) -> set[str]:
    found = (_ALLOCATION.match(block) for block in text)
    return {each[1] for each in found if each is not None}


def _in_place(
    name: str,
    inputs: list[str],
    text: list[str],
    makes: list[str],
    namespace: dict[str, Any],
    pairs: tuple[tuple[int, int], ...],
) -> Any:
    """The function of the same lines where some results are written over arguments."""
    over = {makes[made]: inputs[argument] for made, argument in pairs}

    def line(block: str) -> str:
        found = _ALLOCATION.match(block)
        if found is None or found[1] not in over:
            return block
        return f"{found[1]} = reinterpret_tensor({over[found[1]]}, {found[2]}, 0)"

    return _function(f"{name}_in_place", inputs, [line(block) for block in text], makes, namespace)


def _fake_namespace(wrapper: Wrapper) -> dict[str, Any]:
    """What allocates, on fake tensors."""

    def allocate(device: str) -> Any:
        def empty_strided(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty_strided(size, stride, dtype=dtype, device=device)

        return empty_strided

    names = [name for name in wrapper.namespace if name.startswith("empty_strided_")]
    made = {name: allocate(name.removeprefix("empty_strided_").split("_")[0]) for name in names}
    return {**wrapper.namespace, **made, "reinterpret_tensor": reinterpret}


def _fakes(piece: Piece, given: dict[str, Any], wrapper: Wrapper) -> dict[str, Any]:
    """Fake tensors for what a piece makes: its allocations are run on them, its kernels aren't."""
    scope: dict[str, Any] = dict(given)
    namespace = _fake_namespace(wrapper)
    for block in piece.text:
        if block.split(" = ")[-1].startswith(("empty_strided_", "torch.empty_like(")):
            exec(block, namespace, scope)
    for name, layout in piece.layouts.items():
        scope[name] = torch.empty_strided(
            layout.size, layout.stride, dtype=layout.dtype, device=layout.device
        )
    return scope
