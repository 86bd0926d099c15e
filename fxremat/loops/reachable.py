"""What a step can reach without being given it: tensors of its closure, globals and module.

Gradients of leaves are found in the graph of a step. What a graph doesn't show are tensors that
were computed before the loop, of which it has only the node, and buffers that a step changes.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

_DEPTH = 6
_LONGEST = 10_000  # longer containers are data

_PLAIN = (str, bytes, int, float, complex, type(None), type, types.ModuleType)


@dataclass(frozen=True)
class Reachable:
    """Every tensor and every random generator that is found from a step, each once."""

    tensors: tuple[torch.Tensor, ...]
    generators: tuple[torch.Generator, ...]


def reachable(step: Callable[..., Any]) -> Reachable:
    """What a step can reach, to some depth; a container of more than 10,000 is taken for data."""
    tensors: list[torch.Tensor] = []
    generators: list[torch.Generator] = []
    seen: set[int] = set()
    # Objects are held here, so that no id is given twice.
    stack: list[tuple[Any, int]] = [(step, 0)]
    held: list[Any] = []
    while stack:
        thing, depth = stack.pop()
        if id(thing) in seen or depth > _DEPTH:
            continue
        seen.add(id(thing))
        held.append(thing)
        if isinstance(thing, torch.Tensor):
            tensors.append(thing)
            continue
        if isinstance(thing, torch.Generator):
            generators.append(thing)
            continue
        stack.extend((p, depth + 1) for p in _parts(thing) if not isinstance(p, _PLAIN))
    return Reachable(tuple(tensors), tuple(generators))


def _parts(thing: Any) -> Iterator[Any]:
    if isinstance(thing, nn.Module):
        for module in thing.modules():
            yield from vars(module).values()
            yield type(module).forward
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, functools.partial):
        partial = cast("functools.partial[Any]", thing)
        yield from (partial.func, partial.args, partial.keywords)
    elif isinstance(thing, types.FunctionType):
        yield from _of_function(thing)
    elif isinstance(thing, (tuple, list, set, frozenset, dict)):
        container = cast("Collection[Any]", thing)
        if len(container) <= _LONGEST:
            yield from (
                cast("dict[Any, Any]", thing).values() if isinstance(thing, dict) else container
            )
    else:
        kind = cast("type[Any]", type(thing))
        if not _is_a_librarys(kind):
            yield from getattr(thing, "__dict__", {}).values()
            yield vars(kind).get("__call__")


def _is_a_librarys(thing: type[Any] | types.FunctionType) -> bool:
    """Whether it is torch's or Python's, whose globals are none of the user's."""
    head = (thing.__module__ or "").partition(".")[0]
    return head != "__main__" and (head == "torch" or head in sys.stdlib_module_names)


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that isn't bound yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield getattr(function, "__wrapped__", None)
    if _is_a_librarys(function):
        return
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        yield from (function.__globals__.get(name) for name in code.co_names)
        codes.extend(each for each in code.co_consts if isinstance(each, types.CodeType))
