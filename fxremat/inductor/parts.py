"""Parts of a buffer: which elements a name of one stands for, and whether two parts share any."""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """The elements that a strided view has, counted from the begin of its buffer."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def inside(self, whole: Part | None) -> Part:
        """The same, of a view that was taken of a part."""
        return self if whole is None else Part(self.size, self.stride, self.offset + whole.offset)


def part_of(text: str) -> Part | None:
    """What ``name = reinterpret_tensor(buffer, size, stride, offset)`` names; None if unknown."""
    (statement,) = ast.parse(text).body
    call = statement.value if isinstance(statement, ast.Assign) else None
    if not isinstance(call, ast.Call) or len(call.args) != 4:
        return None
    if not isinstance(call.func, ast.Name) or call.func.id != "reinterpret_tensor":
        return None  # an op that returns a view
    try:
        size, stride, offset = map(ast.literal_eval, call.args[1:])
    except ValueError:
        return None
    return Part(size, stride, offset)


def are_apart(first: Part | None, second: Part | None) -> bool:
    """Whether two parts surely share no element; None is all of a buffer, or unknown.

    So it is where they are slices, along one dimension, of what the same strides lay out: each
    index then has its own place, as each stride is larger than what all smaller ones reach.
    """
    if first is None or second is None or first.stride != second.stride:
        return False
    if first.offset > second.offset:
        first, second = second, first
    shift = second.offset - first.offset
    sizes = zip(first.stride, first.size, second.size, strict=True)
    dimensions = sorted(d for d in sizes if max(d[1:]) > 1)
    for position, (stride, size, other) in enumerate(dimensions):
        begin, rest = divmod(shift, stride)
        reach = max(size, begin + other)
        larger = dimensions[position + 1][0] if position + 1 < len(dimensions) else None
        if not rest and begin >= size and (larger is None or reach * stride <= larger):
            return _is_laid_out(dimensions, position, reach)
    return False


def _is_laid_out(dimensions: list[tuple[int, int, int]], along: int, reach: int) -> bool:
    """Whether each stride is at least what all smaller ones reach over."""
    reached = 1
    for position, (stride, size, other) in enumerate(dimensions):
        if stride < reached:
            return False
        reached = stride * (reach if position == along else max(size, other))
    return True
