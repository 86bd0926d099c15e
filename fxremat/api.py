"""`optimize`: a model (or a function of the whole loss) as one that trains within a budget."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import fx, nn

from fxremat import torch_hooks
from fxremat.backend import Backend, Planned, make_options
from fxremat.budget import Budget
from fxremat.bypass import watch_parameters
from fxremat.capture import ON_META
from fxremat.errors import DeviceError, GraphBreakError, OptionError

F = TypeVar("F", bound=Callable[..., Any])

# Every new input shape is one more plan; past this many, all are forgotten and made anew.
_SHAPES_LIMIT = 256


@dataclass(frozen=True, eq=False)
class _Weakly:
    """A backend as Dynamo gets it, which keeps every backend that it was ever given alive.

    The `Compiled` that calls holds it while it is called.
    """

    backend: weakref.ref[Backend]

    def __call__(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        backend = self.backend()
        assert backend is not None
        return backend(module, inputs)


@dataclass(frozen=True)
class Compiled:
    """A function compiled under a budget: call it. `backend` holds the graphs and their plans.

    `module` is the module whose forward `function` is, if it is one. Where no gradients are
    recorded the function itself runs, and nothing is compiled.
    """

    function: Callable[..., Any]
    backend: Backend
    call: Callable[..., Any]
    module: nn.Module | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._records_gradients(args, kwargs):
            return self.function(*args, **kwargs)
        begun = self.backend.steps.count
        results = self._call_compiled(*args, **kwargs)
        if self.backend.steps.count == begun and torch_hooks.requires_grad(results):
            self.backend.steps.warn(
                "Dynamo ran the optimized model uncompiled, so the step has no plan, and its "
                "memory no budget: TORCHDYNAMO_DISABLE=1, torch.compiler.set_stance and "
                "torch.compiler.disable do this. Take them away for training steps"
            )
        return results

    def _records_gradients(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if not torch.is_grad_enabled():
            return False
        if self.module is None:
            return True  # What a function closes over can't be seen.
        trained = any(parameter.requires_grad for parameter in self.module.parameters())
        return trained or torch_hooks.requires_grad((args, kwargs))

    def _call_compiled(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.call(*args, **kwargs)
        except Exception as error:
            if self.module is not None and any(p.is_meta for p in self.module.parameters()):
                raise DeviceError(ON_META) from error
            reason = torch_hooks.unwrap_graph_break(error)
            if reason is None:
                raise
            raise GraphBreakError(
                "the model does not trace into one graph, so one budget can't hold for its whole "
                f"step. Remove what breaks the graph, or optimize only the part without it:\n"
                f"{reason}"
            ) from error

    def plan_for(self, example_inputs: object) -> None:
        """Compile for the given inputs without running the model."""
        args, kwargs = _call_arguments(example_inputs)
        self.backend.only_plan = True
        try:
            with torch.enable_grad():
                self._call_compiled(*args, **kwargs)
        except Planned:
            pass
        finally:
            self.backend.only_plan = False


def optimize(
    model: F,
    *,
    budget: int | float | str | Budget,
    example_inputs: object = None,
    solver: str = "auto",
    cost: str = "auto",
    time_limit_s: float = 20.0,
    seed: int = 0,
    effort: float = 0.2,
) -> F:
    """A drop-in for `model` whose training steps stay within `budget`.

    `model` is a module, or any function of tensors (for instance one that returns the whole
    loss). A module gives a module of the same class with the same parameters, buffers, hooks and
    `state_dict()` keys; the original stays as it is and shares its parameters.

    `budget` caps the step memory: an int is bytes, a str a size such as ``"6GiB"``, a float in
    (0, 1] a fraction of the step memory with nothing recomputed, of the largest step seen so far;
    see `Budget`. It holds for one forward and its backward, for every input shape, which gets a
    plan of its own. Compilation happens at the first call that records gradients, or at once where
    `example_inputs` are given (a tensor, a tuple of arguments or a dict of keyword arguments).
    Where none are recorded (`torch.no_grad`, nothing that requires them) the model runs as it is.

    `solver` is a name of `fxremat_solvers.SOLVERS`, `cost` one of "auto", "flops", "roofline" and
    "measured", `time_limit_s` a stop for the solver. `effort` scales how long "auto" searches: the
    default keeps planning shorter than tracing, 1 is the solvers' own and gains a little.

    Raises `BudgetError`, `OptionError`, `DeviceError` at once; `BudgetInfeasible`,
    `GraphBreakError` and `UnsupportedGraphError` when it compiles. Warns `UnplannedStepWarning`,
    once, where a training step turns out to have run without its plan.
    """
    if not callable(model):
        raise OptionError(
            f"model is a {type(model).__name__}: give an nn.Module or a function of tensors"
        )
    options = make_options(
        {
            "budget": budget,
            "solver": solver,
            "cost": cost,
            "time_limit_s": time_limit_s,
            "seed": seed,
            "effort": effort,
        }
    )
    backend = Backend(options, whole=True)
    module = _original(model) if isinstance(model, nn.Module) else None
    if module is not None:
        _check_wrapper(module)
        _check_device(module)
    function: Callable[..., Any] = model if module is None else module.forward
    call = torch_hooks.compile_whole(
        function, _Weakly(weakref.ref(backend)), _SHAPES_LIMIT, backend.forget_graphs
    )
    compiled = Compiled(function, backend, call, module)
    if example_inputs is not None:
        compiled.plan_for(example_inputs)
    if module is None:
        return cast("F", _optimized_function(model, compiled))
    watch_parameters(module, backend.steps)
    return cast("F", _optimized_module(module, compiled))


def compiled_of(optimized: object) -> Compiled:
    """What `optimize` compiled; `OptionError` for anything that it did not return."""
    found = getattr(optimized, "__fxremat__", None)
    if not isinstance(found, Compiled):
        raise OptionError(
            f"{type(optimized).__name__} is not what fxremat.optimize returned: give that object"
        )
    return found


def _optimized_function(function: Callable[..., Any], compiled: Compiled) -> Callable[..., Any]:
    @functools.wraps(function)
    def optimized(*args: Any, **kwargs: Any) -> Any:
        return compiled(*args, **kwargs)

    optimized.__fxremat__ = compiled  # type: ignore[attr-defined]
    return optimized


def _optimized_module(model: nn.Module, compiled: Compiled) -> nn.Module:
    """A second module over the very same attributes, of a subclass with another `forward`.

    The two share one ``__dict__``: parameters, buffers, submodules, hooks and the training flag
    are the same objects, whichever of the two they are changed through. What is compiled is kept
    beside it, in a slot, so that the original carries no trace of it.
    """
    cls = type(model)

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        import copy

        options = self.__fxremat__.backend.options
        return _rebuild(copy.deepcopy(model, memo), options.__dict__)

    def reduce(self: Any, _protocol: int) -> Any:
        options = self.__fxremat__.backend.options
        return _rebuild, (model, options.__dict__)

    subclass = type(
        cls.__name__,
        (cls,),
        {
            "__slots__": ("__fxremat__", "__fxremat_forward__", "__fxremat_original__"),
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
            "forward": _CompiledForward(cls.forward),
            "__deepcopy__": deepcopy,
            "__reduce_ex__": reduce,
        },
    )
    # Not the class's own __new__: FSDPModule's makes the module that it wraps.
    optimized = object.__new__(subclass)
    object.__setattr__(optimized, "__dict__", model.__dict__)
    object.__setattr__(optimized, "__fxremat__", compiled)
    object.__setattr__(optimized, "__fxremat_forward__", None)
    object.__setattr__(optimized, "__fxremat_original__", model)
    return cast("nn.Module", optimized)


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
        return module.__fxremat_forward__ or types.MethodType(self._function, module)

    def __set__(self, module: Any, forward: Callable[..., Any]) -> None:
        object.__setattr__(module, "__fxremat_forward__", forward)


def _original(model: nn.Module) -> nn.Module:
    """The untouched module under an optimized one; the module itself otherwise."""
    return cast("nn.Module", getattr(model, "__fxremat_original__", model))


def _rebuild(model: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    return optimize(model, **options)


def _check_wrapper(model: nn.Module) -> None:
    """Refuse what logs and communicates around the forward of the module that it holds."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    name = next((wrapper.__name__ for wrapper in wrappers if isinstance(model, wrapper)), None)
    if name is not None:
        raise OptionError(
            f"the model is wrapped in {name}, whose own forward is no part of a graph: optimize "
            f"first, then wrap ({name}(fxremat.optimize(model, ...)))"
        )


def _check_device(model: nn.Module) -> None:
    tensors = (*model.parameters(), *model.buffers())
    if any(t.device.type == "cuda" for t in tensors) and not torch.cuda.is_available():
        raise DeviceError("the model is on a CUDA device, but none is available here")
    devices = {t.device for t in tensors if t.device.type not in ("cpu", "meta")}
    if len(devices) > 1:
        raise DeviceError(
            f"the model spans {sorted(map(str, devices))}: one budget is for one device; optimize "
            "the part on each device by itself"
        )


def _call_arguments(example_inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(cast("Mapping[str, Any]", example_inputs))
    if isinstance(example_inputs, (tuple, list)):
        return tuple(cast("tuple[Any, ...]", example_inputs)), {}
    raise OptionError(
        f"example_inputs is a {type(example_inputs).__name__}: give a tensor, a tuple of "
        "arguments or a dict of keyword arguments"
    )
