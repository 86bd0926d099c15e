"""Small typed questions to fx nodes, asked all over the package."""

# torch's own annotations of fx nodes are loose; this module is where they become ours.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeGuard, cast

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.kernel import Kernel

aten = torch.ops.aten

# The key in a node's meta of its value with the largest sizes that the data can give it.
BOUNDED = "fxremat_largest_val"
# The key in a placeholder's meta that says that the call itself makes what it brings.
MADE_BY_CALL = "fxremat_made_by_call"


def is_op(target: object) -> TypeGuard[torch_hooks.OpOverload]:
    """Whether a node's target is an op of torch's dispatcher."""
    return isinstance(target, torch_hooks.OpOverload)


def op_name(target: object) -> str:
    """``"native_dropout"`` for ``aten.native_dropout.default``; empty for what is no op."""
    return torch_hooks.schema_of(target).name.split("::")[-1] if is_op(target) else ""


def is_mutable(target: object) -> bool:
    """Whether an op writes to one of its arguments."""
    return is_op(target) and torch_hooks.schema_of(target).is_mutable


def is_identity(node: fx.Node) -> bool:
    """Whether a node is another name of its first argument (no new shape, stride or dtype)."""
    return node.target in (aten.detach.default, aten.alias.default)


def is_collective(node: fx.Node) -> bool:
    """Whether a node communicates with other ranks."""
    namespace = getattr(node.target, "namespace", "")
    return namespace in ("_c10d_functional", "c10d_functional", "c10d")


def is_effect(node: fx.Node) -> bool:
    """Whether a node does something besides making its outputs (mutation, assert, collective)."""
    if node.op != "call_function":
        return False
    if isinstance(node.target, Kernel):
        return node.target.has_effect
    return is_collective(node) or is_mutable(node.target) or torch_hooks.is_impure(node)


def written_by_kernel(node: fx.Node) -> tuple[fx.Node, ...]:
    """The arguments that a compiled kernel writes to; none for what is no kernel."""
    if not isinstance(node.target, Kernel):
        return ()
    written = (node.args[position] for position in node.target.writes)
    return tuple(arg for arg in written if isinstance(arg, fx.Node))


def schema_arguments(target: object) -> list[torch.Argument]:
    """The arguments that an op takes, in order; none for what is no op."""
    return list(torch_hooks.schema_of(target).arguments) if is_op(target) else []


def argument_of(node: fx.Node, name: str) -> Any:
    """The value that an op's node gives to the argument of that name; None without it."""
    for index, argument in enumerate(schema_arguments(node.target)):
        if argument.name == name:
            if index < len(node.args):
                return node.args[index]
            return node.kwargs.get(name, argument.default_value)
    return None


def traced_value(node: fx.Node) -> Any:
    """What tracing saw a node return: fake tensors, or None where nothing is known.

    Sizes that depend on the data are the largest that they can be.
    """
    return node.meta.get(BOUNDED, node.meta.get("val"))


def set_traced_value(node: fx.Node, value: Any) -> None:
    """Put another value in the place of the one that a node was seen to return."""
    node.meta[BOUNDED if BOUNDED in node.meta else "val"] = value


def depends_on_data(node: fx.Node) -> bool:
    """Whether a node makes tensors whose sizes depend on the data."""
    return BOUNDED in node.meta and not is_number_of_data(node)


def is_number_of_data(node: fx.Node) -> bool:
    """Whether a node makes a Python number that depends on the data."""
    return BOUNDED in node.meta and not is_tuple(node) and not tensors_of(node)


def outputs_of(value: object) -> tuple[Any, ...]:
    """A node's value as a tuple of outputs."""
    if isinstance(value, (tuple, list)):
        return tuple(cast("tuple[Any, ...]", value))
    return (value,)


def is_tuple(node: fx.Node) -> bool:
    """Whether a node has several outputs, read by getitem."""
    return isinstance(traced_value(node), (tuple, list))


def tensors_of(node: fx.Node) -> tuple[torch.Tensor, ...]:
    """The tensors among a node's outputs."""
    return tuple(v for v in outputs_of(traced_value(node)) if isinstance(v, torch.Tensor))


def input_tensors(node: fx.Node) -> tuple[torch.Tensor, ...]:
    """The tensors that a node reads, as traced."""
    return tuple(tensor for arg in node.all_input_nodes for tensor in tensors_of(arg))


def argument_by_storage(node: fx.Node) -> dict[int, fx.Node]:
    """Which argument brings each storage that a node is given: a result with one of them is a view.

    By `torch_hooks.storage_key`, which is valid while the traced values are alive.
    """
    return {
        torch_hooks.storage_key(tensor): arg
        for arg in node.all_input_nodes
        for tensor in tensors_of(arg)
    }


def attribute(node: fx.Node) -> Any:
    """What a get_attr node reads; None where its module has no such thing."""
    value: Any = node.graph.owning_module
    for part in str(node.target).split("."):
        value = getattr(value, part, None)
    return value


def inner_graphs(node: fx.Node) -> tuple[fx.GraphModule, ...]:
    """The graphs that a higher-order op is given (branches of cond, bodies of map and scan)."""
    if not torch_hooks.is_higher_order(node.target):
        return ()
    given = (attribute(arg) for arg in node.all_input_nodes if arg.op == "get_attr")
    return tuple(graph for graph in given if isinstance(graph, fx.GraphModule))


def map_nodes(arguments: Any, function: Callable[[fx.Node], Any]) -> Any:
    """Arguments of a node with every node in them replaced."""
    return fx.node.map_arg(arguments, function)


def returned(graph: fx.Graph) -> list[Any]:
    """What a graph returns, in order: nodes and constants."""
    output = next(iter(graph.find_nodes(op="output")))
    return list(cast("tuple[Any, ...]", output.args[0]))


def module_path(node: fx.Node) -> str:
    """The module that a node comes from, as in `named_modules()`; empty for none."""
    stack: dict[str, tuple[str, object]] = (
        node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack") or {}
    )
    path = ""
    for entry in stack.values():
        path = str(entry[0])
    path = re.sub(r"^L\['[^']*'\](\.__self__)?\.?", "", path)
    path = re.sub(r"\._modules\['([^']*)'\]|\[(\d+)\]", lambda m: f".{m[1] or m[2]}", path)
    return path
