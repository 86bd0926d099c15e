"""What becomes of a `forward` that a library sets on an optimized module.

Libraries wrap the forward that is there (accelerate casts around it), or put another one in its
place that may call it (TRL computes its loss from the backbone). Either way it is the step from
then on, so it is what is compiled, with the forwards that it took from the module inside.
"""

from __future__ import annotations

import dis
import functools
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from fxremat.frontend.compiled import Compiled

Forward = Callable[..., Any]

# As often torch compiles one function by default.
_LIMIT = 8


@dataclass
class SetForwards:
    """The forwards that were set on a module whose own is `own`; `now` is the one that runs.

    `made` has what stands for each, as a function or a method of the module, as it was set.
    `inside` says that one of them is called, so that what is traced is ours.
    """

    own: Compiled
    now: Forward | None = None
    inside: bool = False
    made: dict[Forward, Forward] = field(default_factory=dict[Forward, Forward])
    warned: bool = False

    def set(self, module: object, forward: Forward) -> None:
        """Have `forward` run from now on."""
        if forward not in self.made.values():  # else it is put back
            if forward not in self.made and self._runs_as_it_is(forward):
                self.now = forward
                return
            forward = self.made.get(forward) or self._make(module, forward)
        self.now = forward

    def called(self, compiled: Compiled) -> Forward:
        """What a call of a forward runs that another took from the module: no graph of its own."""
        return compiled.function if self.inside and torch.compiler.is_compiling() else compiled

    def _make(self, module: object, forward: Forward) -> Forward:
        compiled = self.own.replaced_by(forward)
        bound = getattr(forward, "__self__", None) is module
        function = forward.__func__ if bound else forward  # type: ignore[attr-defined]

        # Whose `__wrapped__` is what was set, for libraries that take their wrapping away again.
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return self.called(compiled)(*args[bound:], **kwargs)
            self.inside = True
            try:
                return compiled(*args[bound:], **kwargs)
            finally:
                self.inside = False

        made = types.MethodType(call, module) if bound else call
        self.made[forward] = made
        return made

    def _runs_as_it_is(self, forward: Forward) -> bool:
        """Whether a forward is set for one call, as it seems; compiling takes longer than that."""
        code = _code_of(forward)
        if isinstance(code, types.CodeType) and any(
            line.opname == "STORE_ATTR" and line.argval == "forward"
            for line in dis.get_instructions(code)
        ):
            # It takes itself away again, as Lightning sends a single call through a wrapper.
            return True
        if sum(_code_of(each) is code for each in self.made) < _LIMIT:
            return False
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"a forward was set on the optimized {type(self.own.module).__name__} more than "
                f"{_LIMIT} times ({getattr(code, 'co_qualname', code)}), each time another object: "
                "from now on it runs uncompiled, and only what it calls of the forward before it "
                "is planned. Set it once, before the first step",
                stacklevel=4,
            )
        return True


def _code_of(forward: Forward) -> object:
    """What two forwards have in common that differ in what they close over."""
    while isinstance(forward, functools.partial):
        forward = forward.func
    return getattr(forward, "__code__", type(forward))
