"""A function compiled under a budget: what `optimize` puts in the place of a model's forward."""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx, nn

from fxremat import torch_hooks
from fxremat.capture.read import ON_META
from fxremat.errors import (
    BudgetInfeasible,
    DeviceError,
    DispatchModeError,
    GraphBreakError,
    OptionError,
    UnsupportedGraphError,
)
from fxremat.frontend.backend import Backend
from fxremat.frontend.bypass import watch_parameters
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.frontend.regions import Regions
from fxremat.frontend.step_budget import StepBudget

# Every new input shape is one more plan; past this many, each takes the place of the oldest.
_SHAPES_LIMIT = 256


Compile = Callable[[Callable[..., Any], bool, bool], Callable[..., Any]]
"""Compiles a function, as one graph if that is asked for, else as several if need be; and said
whether those end deep inside of it, at blocks that are compiled by themselves."""


@dataclass(frozen=True)
class Compiled:
    """A function compiled under a budget: call it. `backend` knows its plans.

    `module` is the module whose forward `function` is, if it is one. `asked` are the arguments of
    `optimize` that make the same of another. Where no gradients are recorded the function itself
    runs, and nothing is compiled.
    """

    function: Callable[..., Any]
    backend: Backend
    call: Callable[..., Any]
    module: nn.Module | None = None
    asked: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @staticmethod
    def of(
        function: Callable[..., Any],
        backend: Backend,
        module: nn.Module | None = None,
        shapes_limit: int = _SHAPES_LIMIT,
        *,
        fullgraph: bool = False,
        budget: StepBudget | None = None,
        blocks: bool = False,
        asked: Mapping[str, Any] | None = None,
    ) -> Compiled:
        """`function` as one that is compiled by `backend` when it is called.

        Where it breaks into several graphs they are parts of a step; with `fullgraph` that is an
        error. Under a step's `budget` it is a part of one from the first, and with `blocks` its
        repeated blocks are. Raises `OptionError` where there are none.
        """
        compile_function = _compiler(backend, shapes_limit)

        def compile_forward(
            of: nn.Module | None, forward: Callable[..., Any], whole: bool, around: bool
        ) -> Callable[..., Any]:
            """Of a module, once for all of its class where they share a budget."""
            method: Callable[..., Any] | None = getattr(forward, "__func__", None)
            if budget is None or of is None or method is None or method is not type(of).forward:
                return compile_function(forward, whole, around)
            call = budget.call_of((method, whole), lambda: compile_function(method, whole, around))
            return functools.partial(call, of)

        def compile_own(whole: bool) -> Callable[..., Any]:
            return compile_forward(module, function, whole, blocks)

        def compile_block(block: nn.Module) -> Callable[..., Any]:
            return compile_forward(block, block.forward, False, False)

        regions = Regions.of_blocks(module, compile_block) if blocks else Regions.none()
        if fullgraph and backend.tracker is None:
            call = compile_own(True)
        else:
            call = _WholeOrParts(
                compile=compile_own,
                backend=backend,
                device=_device_of(module),
                module=module,
                regions=regions,
                fullgraph=fullgraph,
            )
        return Compiled(function, backend, call, module, asked or {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        refuse_inside()
        if not self._records_gradients(args, kwargs):
            return self.function(*args, **kwargs)
        modes = torch_hooks.dispatch_modes()
        if modes:
            # Before Dynamo sees the call: what it once skipped it never compiles.
            raise DispatchModeError(
                f"{', '.join(modes)} is active: torch compiles and runs no compiled step under a "
                "mode that sees every op. Measure the original model with it, or keep it around "
                "what is not optimized"
            )
        begun = self.backend.steps.count
        try:
            results = self.call(*args, **kwargs)
        except Exception as error:
            self._raise_readable(error)
            raise
        if self.backend.steps.count == begun and torch_hooks.requires_grad(results):
            self.backend.steps.warn(
                "Dynamo ran the optimized model uncompiled, so the step has no plan, and its "
                "memory no budget: TORCHDYNAMO_DISABLE=1, torch.compiler.set_stance, "
                "torch.compiler.disable and a torch.compile around it do this. Take them away for "
                "training steps"
            )
        return results

    def replaced_by(self, function: Callable[..., Any]) -> Compiled:
        """Another forward of the module in the place of this one: same budget, same history."""
        step = WholeStep(fullgraph=self.backend.step.fullgraph)
        self.backend.step = step
        fullgraph = self.asked.get("fullgraph", step.fullgraph)
        made = Compiled.of(
            function, self.backend, self.module, fullgraph=fullgraph, asked=self.asked
        )
        if isinstance(made.call, _WholeOrParts) and isinstance(self.call, _WholeOrParts):
            made.call.regions = self.call.regions
        return made

    def plan_ahead(self, example_inputs: object) -> None:
        """Plan for the given inputs. The function is traced, not run; nothing is compiled."""
        args, kwargs = call_arguments(example_inputs)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                torch_hooks.trace_whole(self.function, args, kwargs, self.backend.plan_ahead)
        except torch_hooks.PassesThroughDynamo as error:
            raise error.remove_dynamo_frames() from None
        except Exception as error:
            self._raise_readable(error)
            raise

    def _records_gradients(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if not torch.is_grad_enabled():
            return False
        if self.module is None:
            return True  # What a function closes over can't be seen.
        trained = any(parameter.requires_grad for parameter in self.module.parameters())
        return trained or torch_hooks.requires_grad((args, kwargs))

    def _frees_gradients(self) -> bool:
        """Whether an optimizer in the backward may take gradients before it ends."""
        if self.module is None or self.backend.tracker is not None:
            return False
        return any(
            hook.__module__ != watch_parameters.__module__
            for parameter in self.module.parameters()
            for hook in torch_hooks.called_when_accumulated(parameter)
        )

    def _raise_readable(self, error: Exception) -> None:
        """Raise in our words what torch says of a model that can't be traced."""
        if isinstance(error, BudgetInfeasible) and self._frees_gradients():
            error.add_note(
                "Hooks on the parameters seem to free gradients as they come. Those of one graph "
                'all live to its end: with regions="blocks" only those of a block do, and the '
                "budget counts what is held"
            )
        cause = torch_hooks.shown_cause(error)
        if self.module is not None and any(p.is_meta for p in self.module.parameters()):
            raise DeviceError(ON_META) from cause
        reason = torch_hooks.unwrap_graph_break(error)
        if reason is not None:
            raise GraphBreakError(
                "the model does not trace into one graph, as fullgraph=True and planning ahead "
                "(example_inputs) need it. Leave them out, and the graphs of a step are planned "
                "together from its second one on; or remove what breaks the graph:\n"
                f"{reason}"
            ) from cause
        inside = torch_hooks.torch_failure(error)
        if inside is not None:
            raise UnsupportedGraphError(
                "torch itself fails when it traces the model, before there is a graph to plan "
                '(torch.compile(model, backend="eager", fullgraph=True) fails too). Rewrite the '
                f"line, or keep it out of the optimized function:\n{inside}"
            ) from cause
        if torch_hooks.shorten(error):
            raise error from None


@dataclass(eq=False)
class _WholeOrParts:
    """A function compiled as one graph, or, once it turns out to break, as the parts of a step.

    Where the backend has a tracker already it is parts from the first.
    """

    compile: Callable[[bool], Callable[..., Any]]
    backend: Backend
    device: torch.device
    module: nn.Module | None
    regions: Regions
    fullgraph: bool
    whole: Callable[..., Any] | None = None
    parts: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # What is whole stays so where a tracker came later: whole graphs may be parts of a step,
        # and under DDP the one that Dynamo traced is split by the buckets.
        if self.parts is None and (self.whole is not None or self.backend.tracker is None):
            if self.whole is None:
                self.whole = self.compile(True)
            try:
                with self._inside():
                    return self.whole(*args, **kwargs)
            except Exception as error:
                reason = torch_hooks.unwrap_graph_break(error)
                if reason is None:
                    raise
                self.backend.track(torch_hooks.summary_of_break(reason))
        if self.parts is None:
            self.whole = None
            self.parts = self.compile(self.fullgraph)
            if self.module is not None and not self.fullgraph:
                self.regions = self.regions.and_of_torch(self.module)
        with self._inside(), self.regions.in_place():
            return self.parts(*args, **kwargs)

    def _inside(self) -> AbstractContextManager[None]:
        """Around a call, which is in a step where there is a tracker."""
        tracker = self.backend.tracker
        return contextlib.nullcontext() if tracker is None else tracker.inside(self.device)


def _compiler(backend: Backend, shapes_limit: int) -> Compile:
    """Compiles functions by a backend, and warns, once, when one of them has too many graphs."""
    warned = False

    def warn() -> None:
        nonlocal warned
        if not warned:
            warned = True
            warnings.warn(
                f"{shapes_limit} graphs are planned for this model, one for each input shape "
                "and each value of what is no tensor: from now on each new one takes the place "
                "of the one that was used the longest ago, and is planned anew if it comes "
                "back. Pad inputs to fewer shapes; give what changes at each step as a tensor",
                stacklevel=4,
            )

    weakly = _Weakly(weakref.ref(backend))

    def compile_function(
        function: Callable[..., Any], fullgraph: bool, around: bool
    ) -> Callable[..., Any]:
        return torch_hooks.compile_whole(
            function, weakly, shapes_limit, warn, fullgraph=fullgraph, ends_inside=around
        )

    return compile_function


def _device_of(module: nn.Module | None) -> torch.device:
    """The device whose memory a step is planned for."""
    tensors = () if module is None else (*module.parameters(), *module.buffers())
    found = next((t.device for t in tensors if t.device.type not in ("cpu", "meta")), None)
    if found is not None:
        return found
    return torch.device("cuda" if module is None and torch.cuda.is_available() else "cpu")


def refuse_inside() -> None:
    """End a graph of Dynamo's at a call of what is compiled here, which has a graph of its own.

    Inside one of ours that is an error: one budget can't hold in another.
    """
    if torch.compiler.is_compiling():
        torch_hooks.break_graph(
            "a model that fxremat.optimize returned is called inside another function that is "
            "compiled: optimize the function around it alone, or each part by itself"
        )


def compiled_of(optimized: object) -> Compiled:
    """What `optimize` compiled; `OptionError` for anything that it did not return."""
    found = getattr(optimized, "__fxremat__", None)
    if not isinstance(found, Compiled):
        raise OptionError(
            f"{type(optimized).__name__} is not what fxremat.optimize returned: give that object. "
            "What torch.compile(backend='fxremat') planned is in the list of fxremat.explain(), "
            "and explain(graph=...) reports on one of it"
        )
    return found


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


def call_arguments(example_inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs as arguments: a tensor, a tuple of them, or a dict by name; `OptionError` else."""
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
