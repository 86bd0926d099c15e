"""Sizes that depend on the data: each such value is planned for the largest that it can have.

`x[mask]` has as many elements as the mask has ones, which no trace knows; torch's symbols know how
many there can be (the mask's own number of elements, a bound that the model states by
`torch._check`). So every traced value with such a symbol gets a second one beside it, its sizes the
upper bounds: passes read that (`nodes.traced_value`), torch goes on with its own. What the step
really allocates is less or the same.

Numbers that are read from the data (`.item()`, the size of `x[mask]`) are made once, by operations
that make a value of 0 bytes, and kept.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.capture.read import graphs_inside
from fxremat.errors import SymbolicSizeError
from fxremat.nodes import (
    BOUNDED,
    inner_graphs,
    input_tensors,
    op_name,
    outputs_of,
    traced_value,
)


def bound_data_sizes(module: fx.GraphModule) -> None:
    """Give each value whose size depends on the data its largest size. Changes only nodes' meta.

    Raises `SymbolicSizeError` where a size has no upper bound.
    """
    # Of each storage the first tensor, as it is planned: views are views of that.
    bases: dict[int, torch.Tensor] = {}

    def bounded(node: fx.Node, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return torch_hooks.some_number(value) if torch_hooks.depends_on_data(value) else value
        if value.layout is not torch.strided:
            return value  # It has no storage, and is refused where the graph is read.
        key = torch_hooks.storage_key(value)
        if torch_hooks.depends_on_data(value):
            value = _view(node, value, bases.get(key))
        bases.setdefault(key, value)
        return value

    for node in module.graph.nodes:
        value = node.meta.get("val")
        if node.op == "output" or value is None:
            continue
        _bound_picked(node)
        planned = [bounded(node, each) for each in outputs_of(value)]
        if any(map(torch_hooks.depends_on_data, outputs_of(value))):
            node.meta[BOUNDED] = planned if isinstance(value, (tuple, list)) else planned[0]


def _bound_picked(node: fx.Node) -> None:
    """State of what a mask picks that it is no more than there is: torch does of many elements."""
    name = op_name(node.target)
    if not torch_hooks.makes_sizes(node) or name not in ("masked_select", "nonzero", "index"):
        return
    shapes = [t.shape[::-1] for t in input_tensors(node) if not _is_indexed(name, t)]
    # masked_select broadcasts its arguments.
    most = math.prod(max(sizes) for sizes in itertools.zip_longest(*shapes, fillvalue=1))
    for size in traced_value(node).shape:
        if torch_hooks.depends_on_data(size) and torch_hooks.largest_size(size) is None:
            torch_hooks.state_at_most(size, most)


def _is_indexed(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor is what is picked from, or is picked with integers."""
    return name == "index" and tensor.dtype not in (torch.bool, torch.uint8)


def _view(node: fx.Node, value: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
    """The largest that a value can be, as a view of its storage's first tensor, or in a new one."""

    def largest(size: int | torch.SymInt) -> int:
        found = torch_hooks.largest_size(size)
        if found is None and inner_graphs(node):
            raise graphs_inside(f"{node.name} ({node.target})")  # How often while_loop runs.
        if found is None:
            raise SymbolicSizeError(
                f"the size of {node.name} ({size}) depends on the data, and nothing says how large "
                "it can be: state it where the number is made (n = count.item(); "
                "torch._check(n <= 512)), give it a fixed size (torch.where in place of x[mask]), "
                "or keep what makes it out of the optimized function"
            )
        return found

    shape, stride = tuple(map(largest, value.shape)), tuple(map(largest, value.stride()))
    offset = torch_hooks.largest_size(value.storage_offset()) or 0
    mode = torch_hooks.fake_mode_of(node)
    assert mode is not None  # Only tracing has sizes that are no numbers.
    with mode:
        if base is None:
            elements = -(-largest(value.untyped_storage().nbytes()) // value.itemsize)
            base = torch.empty(elements, dtype=value.dtype, device=value.device)
        elements = base.untyped_storage().nbytes() // value.itemsize
        extent = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if offset + extent > elements:
            offset = 0  # The largest offset and the largest size are not of the same step.
        made = base
        if made.dtype != value.dtype:
            whole = base.untyped_storage().nbytes() // base.itemsize
            made = made.as_strided((whole,), (1,), 0).view(value.dtype)
        made = made.as_strided(shape, stride, offset)
        made = made.conj() if made.is_conj() != value.is_conj() else made
        return torch_hooks.negated_view(made) if made.is_neg() != value.is_neg() else made
