"""Put the layouts that kernels really return in the place of those that were traced.

A trace says which strides an op's result has; the kernel may return others, or leave its result
in a larger block (`mse_loss_backward`, FFTs). What comes after then copies more or less than the
trace says. So every op is measured, what it really returns replaces its traced value, the values
that depend on it are traced again, and what has another signature then is measured, until nothing
changes. Plans, their checks and the written graphs all read these values.
"""

# torch's own annotations of fx nodes are loose.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.graph import JointGraph
from fxremat.measure.profile_ops import Layout, OpProfiles, profile_ops, signature, signatures
from fxremat.nodes import (
    argument_by_storage,
    attribute,
    is_mutable,
    map_nodes,
    outputs_of,
    set_traced_value,
    traced_value,
)

aten = torch.ops.aten


def set_kernel_layouts(joint: JointGraph, profiles: OpProfiles) -> bool:
    """Give the module that `joint` reads the values that its kernels return; whether any changed.

    A changed module is to be read again. New profiles go to `profiles`. A view that the real
    strides don't allow, at which the traced graph would fail when it runs, gets a copy before it,
    as `reshape` has in eager. Where values can't be traced again otherwise, all stay as traced.
    """
    traced = {node: traced_value(node) for node in joint.module.graph.nodes}
    mode = next((m for m in map(torch_hooks.fake_mode_of, traced) if m is not None), None)
    if mode is None:
        return False
    changed = False
    copies: list[fx.Node] = []
    keys = signatures(joint.nodes)
    try:
        with torch_hooks.real_ops(joint.device):
            while True:
                profile_ops(keys, joint.device, profiles, timing_limit_s=0.0)
                if not _pass_on(joint, keys, profiles, mode, copies):
                    break
                changed = True
    except torch_hooks.PassesThroughDynamo:
        raise
    except Exception:
        for node, value in traced.items():
            set_traced_value(node, value)
        for copy in copies:
            copy.replace_all_uses_with(copy.all_input_nodes[0])
            copy.graph.erase_node(copy)
        return False
    return changed


def _pass_on(
    joint: JointGraph,
    keys: dict[fx.Node, str],
    profiles: OpProfiles,
    mode: torch_hooks.FakeTensorMode,
    copies: list[fx.Node],
) -> bool:
    """One walk over the graph: correct what is known, trace again what depends on it.

    Signatures in `keys` follow, and the copies that are put before views are added to `copies`.
    """
    changed: set[fx.Node] = set()
    for node in joint.module.graph.nodes:
        if node.op != "call_function" or is_mutable(node.target):
            continue
        before = traced_value(node)
        value = before
        is_fed_anew = not changed.isdisjoint(node.all_input_nodes)
        if is_fed_anew and not torch_hooks.makes_sizes(node):
            try:
                after = _traced_again(node, mode)
            except (RuntimeError, ValueError):
                if node.target is not aten.view.default:
                    raise
                copies.append(_with_copy(node, mode))
                after = _traced_again(node, mode)
            value = _kept_where_equal(before, after, argument_by_storage(node))
        if is_fed_anew and node in keys:
            keys[node] = signature(node)
        if node.target is aten.view.default:
            value = _viewed(value, traced_value(node.args[0]), mode)
        if node in keys and node in joint.made_by:
            profile = profiles.by_signature.get(keys[node])
            if profile is not None:
                value = _laid_out(value, profile.layouts, mode)
        if any(a is not b for a, b in zip(outputs_of(before), outputs_of(value), strict=True)):
            set_traced_value(node, value)
            changed.add(node)
    return bool(changed)


def _viewed(value: Any, source: Any, mode: torch_hooks.FakeTensorMode) -> Any:
    """A view's value with the strides that the op gives it in dimensions of size 1.

    A traced view of the same shape keeps its source's. They say nothing of where elements lie, but
    a convolution chooses its kernel, and with it its workspace, by them.
    """
    shape = tuple(value.shape)
    if 1 not in shape or not all(type(n) is int for n in (*source.shape, *source.stride())):
        return value
    real = torch_hooks.view_strides(source, shape)
    if real == value.stride():
        return value
    with mode:
        return value.as_strided(shape, real, value.storage_offset())


def _with_copy(view: fx.Node, mode: torch_hooks.FakeTensorMode) -> fx.Node:
    """Put a copy in one dense block before a view, and return it."""
    source, *shape = view.args
    with view.graph.inserting_before(view):
        copy = view.graph.call_function(
            aten.clone.default, (source,), {"memory_format": torch.contiguous_format}
        )
    # What tracing knew of the view, its source line and its half too, it knows of the copy.
    copy.meta = {**view.meta, "val": _traced_again(copy, mode)}
    view.args = (copy, *shape)
    return copy


def _traced_again(node: fx.Node, mode: torch_hooks.FakeTensorMode) -> Any:
    """A node's value, worked out from the present values of its arguments."""

    def fake(arg: fx.Node) -> Any:
        value = traced_value(arg)
        if value is not None or arg.op != "get_attr":
            return value
        held = attribute(arg)
        return mode.from_tensor(held) if isinstance(held, torch.Tensor) else held

    args, kwargs = map_nodes((node.args, node.kwargs), fake)
    with mode:
        return cast("Callable[..., Any]", node.target)(*args, **kwargs)


def _kept_where_equal(before: Any, after: Any, given: Mapping[int, fx.Node]) -> Any:
    """`after`, with the tensors of `before` that are new memory of the same layout.

    `given` are the storages of the node's arguments.
    """

    def choose(old: Any, new: Any) -> Any:
        if not isinstance(new, torch.Tensor) or not isinstance(old, torch.Tensor):
            return old if new is None or type(new) is type(old) else new
        same = torch_hooks.storage_key(new) not in given and Layout.of(old) == Layout.of(new)
        return old if new is old or same else new

    return _mapped(choose, before, after)


def _laid_out(
    value: Any, layouts: tuple[Layout | None, ...], mode: torch_hooks.FakeTensorMode
) -> Any:
    """A traced value with the layouts that the kernel returned."""

    def lay_out(tensor: Any, real: Layout | None) -> Any:
        if not isinstance(tensor, torch.Tensor) or real is None:
            return tensor
        if _is_left_out(tensor, real):
            with mode:
                return torch.empty(real.shape, dtype=real.dtype, device=tensor.device)
        if not real.storage_bytes:
            return tensor
        # Another shape comes from the invented data, or is no layout of this tensor.
        if tuple(tensor.shape) != real.shape:
            return tensor
        # Strides of dimensions of size 1 too: convolutions choose their kernel by them.
        if real == Layout.of(tensor):
            return tensor
        with mode:
            # Another type too: BatchNorm's statistics of bfloat16 numbers are float32.
            size = -(-real.storage_bytes // real.dtype.itemsize)
            block = torch.empty(size, dtype=real.dtype, device=tensor.device)
            return block.as_strided(real.shape, real.stride, real.offset)

    return _mapped(lay_out, value, layouts)


def _is_left_out(tensor: torch.Tensor, real: Layout) -> bool:
    """Whether a kernel returned nothing where the trace has something (`_embedding_bag`).

    A kernel that is given nothing there works it out again, in memory of its own.
    """
    traced: list[Any] = list(tensor.shape)
    if not all(isinstance(size, int) for size in traced):
        return False
    return real.dtype == tensor.dtype and 0 in real.shape and 0 not in traced


def _mapped(function: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
    """`function` of two values, or of each pair in two equally long tuples or lists."""
    pairs = zip(outputs_of(first), outputs_of(second), strict=True)
    made = [function(a, b) for a, b in pairs]
    if isinstance(first, (tuple, list)):
        return tuple(made) if isinstance(first, tuple) else made
    return made[0]
