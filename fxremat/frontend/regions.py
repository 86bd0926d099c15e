"""Modules inside a model that are compiled by themselves, while the model around them is called.

Their `forward` is replaced on the instance for the time of a call, so that hooks run as ever and
the model that was given stays as it is.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from fxremat import torch_hooks
from fxremat.errors import OptionError

Forward = Callable[..., Any]

# They hold modules, and have no forward.
_LISTS = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, eq=False)
class Regions:
    """Modules, and what runs in the place of the forward of each."""

    forwards: tuple[tuple[nn.Module, Forward], ...]

    @staticmethod
    def none() -> Regions:
        return Regions(())

    @staticmethod
    def of_blocks(
        model: nn.Module | None, compile_forward: Callable[[nn.Module], Forward]
    ) -> Regions:
        """The repeated blocks of a model, each compiled; `OptionError` where there are none.

        A module that calls them in a loop can't be compiled. It is told to Dynamo, which would
        trace it in vain; its other parts are regions, too.
        """
        blocks = [] if model is None else repeated_blocks(model)
        if model is None or not blocks:
            name = "a function" if model is None else type(model).__name__
            raise OptionError(
                f'regions="blocks" was asked of {name}, in which no blocks of one class follow '
                "each other in a ModuleList, ModuleDict or Sequential: leave it out, or optimize "
                "the parts one by one under one fxremat.StepBudget"
            )
        callers, others = _around(model, blocks)
        return Regions(
            tuple(
                (module, torch_hooks.without_dynamo(forward, why))
                for module, forward, why in (
                    *((m, m.forward, "it calls blocks that are regions") for m in callers),
                    *((m, compile_forward(m), "it is a region") for m in (*others, *blocks)),
                )
            )
        )

    def and_of_torch(self, model: nn.Module) -> Regions:
        """These, and torch's own modules of several parts in `model`.

        Dynamo compiles no function of torch's own that is called by code which runs uncompiled,
        and silently leaves an `nn.Sequential` in a loop that breaks as it is. By a forward of ours
        it is compiled as any other module.
        """
        inside = {id(m) for module, _ in self.forwards for m in module.modules()}
        others = [
            (module, types.MethodType(_class_forward, module))
            for module in model.modules()
            if module is not model
            and id(module) not in inside
            and type(module).__module__.startswith("torch.nn.")
            and type(module).forward is not nn.Module.forward
            and "forward" not in vars(module)
            and next(module.children(), None) is not None
        ]
        return Regions((*self.forwards, *others))

    @contextlib.contextmanager
    def in_place(self) -> Generator[None, None, None]:
        """Around a call of the model."""
        before = [(vars(module), vars(module).get("forward")) for module, _ in self.forwards]
        try:
            for (attributes, _), (_, forward) in zip(before, self.forwards, strict=True):
                attributes["forward"] = forward
            yield
        finally:
            for attributes, forward in before:
                if forward is None:
                    attributes.pop("forward", None)
                else:
                    attributes["forward"] = forward


def _class_forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(self).forward(self, *args, **kwargs)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Modules of several parts that follow one of their own class in a container, outermost."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for container in model.modules():
        if id(container) in inside or not isinstance(container, (*_LISTS, nn.Sequential)):
            continue
        children = list(container.children())
        pairs = [pair for pair in pairwise(children) if type(pair[0]) is type(pair[1])]
        repeated = {id(module) for pair in pairs for module in pair}
        for child in children:
            if id(child) in repeated - inside and next(child.children(), None) is not None:
                found.append(child)
                inside.update(id(module) for module in child.modules())
    return found


def _around(model: nn.Module, blocks: list[nn.Module]) -> tuple[list[nn.Module], list[nn.Module]]:
    """The modules inside `model` that call blocks, and the others of several parts in those."""
    inside = {id(module) for block in blocks for module in block.modules()}
    parent = {id(child): module for module in model.modules() for child in module.children()}
    above: set[int] = set()
    callers: dict[int, nn.Module] = {}
    for block in blocks:
        caller = parent[id(block)]
        while isinstance(caller, _LISTS):
            caller = parent[id(caller)]
        if caller is not model:
            callers[id(caller)] = caller
        module = block
        while module is not model:
            module = parent[id(module)]
            above.add(id(module))
    others: dict[int, nn.Module] = {}

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if id(child) in inside:
                continue
            if isinstance(child, _LISTS) or id(child) in above:
                visit(child)
            elif next(child.children(), None) is not None:
                others[id(child)] = child

    for caller in callers.values():
        visit(caller)
    return list(callers.values()), list(others.values())
