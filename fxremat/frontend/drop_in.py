"""A second module over the very same attributes, of a subclass with another `forward`.

A wrapper around the model would change its class, its `state_dict()` keys and what libraries find
when they look for its attributes. So the drop-in is a module of a subclass, made as torch's
`fully_shard` makes its, that shares the model's ``__dict__``: parameters, buffers, submodules,
hooks and the training flag are the same objects, whichever of the two they are changed through.
(A shallow copy would have its own training flag, and a `forward` set on the instance can be
neither pickled nor copied.) What is compiled is kept beside it, in slots, so that the original
carries no trace of it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, cast

from torch import nn

from fxremat.errors import OptionError
from fxremat.frontend.compiled import Compiled, refuse_inside

Again = Callable[..., Any]
"""`optimize`: makes a drop-in for another module, a copy of this one or one that was unpickled."""


def drop_in(model: nn.Module, compiled: Compiled, again: Again) -> nn.Module:
    """A module like `model` whose forward is the compiled one."""
    cls = type(model)
    subclass = type(
        cls.__name__,
        (cls,),
        {
            "__slots__": ("__fxremat__", "__fxremat_again__", "__fxremat_forward__"),
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
            "__deepcopy__": _deepcopy,
            "__reduce_ex__": _reduce,
            "compile": _refuse_to_compile,
            "forward": _CompiledForward(cls.forward),
        },
    )
    # Not the class's own __new__: FSDPModule's makes the module that it wraps.
    made = object.__new__(subclass)
    # Not the class's own __setattr__: nn.Module's looks into the attributes that are shared here.
    for name, value in (
        ("__dict__", model.__dict__),
        ("__fxremat__", compiled),
        ("__fxremat_again__", again),
        ("__fxremat_forward__", None),
    ):
        object.__setattr__(made, name, value)
    return cast("nn.Module", made)


def original(model: nn.Module) -> nn.Module:
    """The module under a drop-in; any other module itself."""
    compiled = getattr(model, "__fxremat__", None)
    if isinstance(compiled, Compiled) and compiled.module is not None:
        return compiled.module
    return model


def _deepcopy(self: Any, memo: dict[int, Any]) -> nn.Module:
    compiled: Compiled = self.__fxremat__
    return _again(self)(copy.deepcopy(compiled.module, memo))


def _reduce(self: Any, _protocol: int) -> tuple[Again, tuple[Any, ...]]:
    compiled: Compiled = self.__fxremat__
    return _again(self), (compiled.module,)


def _refuse_to_compile(_self: Any, *_args: Any, **_kwargs: Any) -> None:
    raise OptionError(
        "compile() was called on what fxremat.optimize returned, which is compiled under its "
        "budget already: torch would compile around it, and no plan would run. Leave the call out"
    )


def _again(self: Any) -> Again:
    """`optimize` with the options of a drop-in, of plain values, so that pickles stay readable."""
    compiled: Compiled = self.__fxremat__
    return functools.partial(self.__fxremat_again__, **compiled.asked)


class _CompiledForward:
    """The `forward` of an optimized module's class.

    On the class it is a function with the signature of the original, for libraries that inspect
    it. On a module it is the compiled one, whatever `forward` the shared ``__dict__`` has; one
    that is set on the optimized module (libraries wrap models that way) takes its place.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        def compiled_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return self.__fxremat__(*args, **kwargs)

        # Without `__wrapped__`, by which libraries that take their wrapping away again would
        # arrive at the original.
        functools.update_wrapper(compiled_forward, forward)
        del vars(compiled_forward)["__wrapped__"]
        with contextlib.suppress(TypeError, ValueError):
            compiled_forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
        self._function = compiled_forward

    def __get__(self, module: Any, _owner: type) -> Callable[..., Any]:
        if module is None:
            return self._function
        refuse_inside()
        return module.__fxremat_forward__ or types.MethodType(self._function, module)

    def __set__(self, module: Any, forward: Callable[..., Any]) -> None:
        object.__setattr__(module, "__fxremat_forward__", forward)
