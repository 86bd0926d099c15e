"""The torch.compile backend: plans every training graph that Dynamo gives it.

``torch.compile(model, backend="fxremat", options={"budget": "6GiB"})`` comes in by the entry point
`fxremat`, `fxremat.optimize` by a `Backend` object; both do the same.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.annotate import check_cost_model
from fxremat.budget import Budget
from fxremat.bypass import PlannedSteps, note_planned
from fxremat.capture import graphs_inside
from fxremat.errors import (
    DoubleBackwardError,
    GraphBreakError,
    OptionError,
    SymbolicSizeError,
)
from fxremat.observe import observers
from fxremat.passes import Traced, collect, compile_plan, plan
from fxremat.pipeline import Between, State
from fxremat.plan import Options, Plan
from fxremat.profile_ops import OpProfiles
from fxremat_solvers import SOLVERS


@dataclass(frozen=True)
class CompiledGraph:
    """One training graph as it was compiled.

    `capture_s` is the time that AOTAutograd took to trace it, `planning_s` all that fxremat added,
    and `seconds` what each pass of that took.
    `sees_loss` is False where the graph returns no scalar to differentiate: what happens between
    its forward and its backward is outside the plan.
    """

    plan: Plan
    input_shapes: tuple[tuple[int, ...], ...]
    sees_loss: bool
    capture_s: float
    planning_s: float
    seconds: Mapping[str, float]


@dataclass
class Backend:
    """A torch.compile backend with its options, and the graphs it compiled (oldest first).

    `whole` says that Dynamo was told to compile the whole function or fail (fullgraph=True).
    With `only_plan` set, compiled graphs raise `Planned` instead of running.
    `largest_step_bytes` is the largest step memory, with nothing recomputed, of all steps seen:
    what a budget that is a fraction is a fraction of. `steps` counts the planned steps that began.
    `between` sees the states between the passes, before the log does.
    """

    options: Options
    graphs: list[CompiledGraph] = field(default_factory=list[CompiledGraph])
    profiles: OpProfiles = field(default_factory=OpProfiles)
    whole: bool = False
    only_plan: bool = False
    frame: int | None = None
    largest_step_bytes: int = 0
    steps: PlannedSteps = field(default_factory=PlannedSteps)
    between: tuple[Between, ...] = ()

    def __call__(self, module: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        if not torch_hooks.needs_gradients(example_inputs):
            # Nothing is held for a backward, so there is nothing to plan: it runs as traced.
            return torch_hooks.without_dynamo(_Evaluation(module.forward, self))
        torch_hooks.specialize_sizes(module, example_inputs, numbers=False)
        self._check_shapes_limit()
        try:
            run = self._compile(module, example_inputs)
        except SymbolicSizeError:
            torch_hooks.specialize_sizes(module, example_inputs, numbers=True)
            run = self._compile(module, example_inputs)
        return torch_hooks.without_dynamo(_Executable(run, self))

    def _compile(self, module: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        started = time.perf_counter()

        def partition(
            joint: fx.GraphModule,
            _inputs: object,
            *,
            num_fwd_outputs: int,
            static_lifetime_input_indices: Sequence[int] | None = None,
            **_unused: object,
        ) -> tuple[fx.GraphModule, fx.GraphModule]:
            self._check_whole(module)
            if torch_hooks.has_compiled_regions(module):
                raise graphs_inside("nested_compile_region")
            return self._partition(
                joint,
                num_fwd_outputs,
                static_lifetime_input_indices,
                capture_s=time.perf_counter() - started,
            )

        return torch_hooks.make_aot_backend(partition)(module, example_inputs)

    def _partition(
        self,
        joint_module: fx.GraphModule,
        num_fwd_outputs: int,
        static_lifetime_input_indices: Sequence[int] | None,
        capture_s: float,
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        started = time.perf_counter()
        seconds: dict[str, float] = {}

        def keep_time(name: str, state: State, taken: float) -> State:
            seconds[name] = taken
            return state

        between = (*self.between, keep_time, *observers())
        indices = tuple(static_lifetime_input_indices or ())
        traced = Traced(joint_module, num_fwd_outputs, indices)
        lowered = collect(traced, self.options.cost, self.profiles, between)
        self.largest_step_bytes = max(self.largest_step_bytes, lowered.untouched.peak_bytes)
        planned = plan(lowered, self.options, self.largest_step_bytes, between)
        written = compile_plan(planned, between)
        self.graphs.append(
            CompiledGraph(
                plan=planned.plan,
                input_shapes=_shapes(joint_module),
                sees_loss=_sees_loss(planned.plan),
                capture_s=capture_s,
                planning_s=time.perf_counter() - started,
                seconds=seconds,
            )
        )
        return written.graphs.forward, written.graphs.backward

    def forget_graphs(self) -> None:
        """Let go of all plans, as what was compiled for them is."""
        warnings.warn(
            f"{len(self.graphs)} graphs are planned for this model, one for each input shape and "
            "each value of what is no tensor: all are forgotten, and planned anew as they come "
            "back. Pad inputs to fewer shapes; give what changes at each step as a tensor",
            stacklevel=4,
        )
        self.graphs.clear()

    def _check_whole(self, module: fx.GraphModule) -> None:
        """One budget is for one whole step: refuse graphs that are only a part of it."""
        reason = torch_hooks.graph_break_of(module)
        if reason is not None:
            raise GraphBreakError(
                f"the model breaks into several graphs: {reason}. One budget can't be kept over "
                "graphs that are compiled one by one. Remove what breaks the graph "
                "(torch._dynamo.explain(model)(*inputs) lists every place), or optimize only the "
                "function without it"
            )
        compiling = torch_hooks.compiled_frame_id()
        if self.whole or compiling is None:
            return
        frame, _ = compiling
        around = torch_hooks.running_inside()
        if around is not None or self.frame not in (None, frame):
            raise GraphBreakError(
                "the model was split into several functions that are compiled one by one"
                f"{f' inside {around}' if around else ''} (a graph break in a loop or a disabled "
                "function does this): one budget can't be kept over them. "
                "torch._dynamo.explain(model)(*inputs) names the place; remove it, or optimize "
                "only the function without it"
            )
        self.frame = frame

    def _check_shapes_limit(self) -> None:
        compiling = torch_hooks.compiled_frame_id()
        if self.whole or compiling is None:
            return
        left = torch_hooks.recompilations_left(compiling[1])
        if left <= 1:
            warnings.warn(
                "this is the last input shape that torch compiles for this model; for further "
                "shapes it would run without any plan or budget. Raise "
                "torch._dynamo.config.recompile_limit, or pad inputs to fewer shapes",
                stacklevel=2,
            )


class Planned(Exception):
    """Raised in place of running, where only a plan was asked for."""


@dataclass(frozen=True)
class _Evaluation:
    """A graph of which no gradients are taken: nothing was compiled."""

    run: Callable[..., Any]
    backend: Backend

    def __call__(self, *args: Any) -> Any:
        if self.backend.only_plan:
            raise Planned
        return self.run(*args)


@dataclass
class _Executable:
    """A compiled training graph, guarded against gradients of gradients."""

    run: Callable[..., Any]
    backend: Backend
    ran: bool = False

    def __call__(self, *args: Any) -> Any:
        if self.backend.only_plan:
            raise Planned
        self.backend.steps.count += 1
        if not self.ran:
            self.ran = True
            note_planned(args)
        results = self.run(*args)
        for result in results:
            if isinstance(result, torch.Tensor) and result.grad_fn is not None:
                result.grad_fn.register_prehook(_refuse_double_backward)
                break
        return results


def _refuse_double_backward(_gradients: object) -> None:
    # The autograd engine runs a backward in grad mode only under create_graph=True.
    if torch.is_grad_enabled():
        raise DoubleBackwardError(
            "create_graph=True was asked of an fxremat model: a rematerialized graph has first "
            "gradients only. Use the untouched model where gradients of gradients are needed"
        )


def _shapes(joint: fx.GraphModule) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(node.meta["val"].shape)
        for node in joint.graph.find_nodes(op="placeholder")
        if torch_hooks.is_primal(node) and isinstance(node.meta.get("val"), torch.Tensor)
    )


def _sees_loss(plan: Plan) -> bool:
    """Whether a scalar is among what the graph returns to differentiate."""
    return bool(plan.joint.scalar_tangents)


def make_options(options: Mapping[str, Any]) -> Options:
    """Checked options. Raises `OptionError` for unknown, missing or bad ones, `BudgetError`."""
    known = set(inspect.signature(Options).parameters)
    unknown = sorted(set(options) - known)
    if unknown:
        raise OptionError(
            f"unknown option{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}: "
            f"fxremat takes {', '.join(sorted(known))}"
        )
    if "budget" not in options:
        raise OptionError("the option 'budget' is missing: give bytes, a size or a fraction")
    limit: Any = options.get("time_limit_s", 1.0)
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0:
        raise OptionError(f"time_limit_s is {limit!r}: it must be a number of seconds above 0")
    effort: Any = options.get("effort", 1.0)
    if isinstance(effort, bool) or not isinstance(effort, (int, float)) or not 0 < effort < inf:
        raise OptionError(f"effort is {effort!r}: it must be a finite number above 0")
    seed: Any = options.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise OptionError(f"seed is {seed!r}: it must be an integer")
    given: dict[str, Any] = {**options, "budget": Budget.of(options["budget"])}
    checked = Options(**given)
    if checked.solver not in SOLVERS:
        raise OptionError(f"unknown solver {checked.solver!r}: choose one of {', '.join(SOLVERS)}")
    check_cost_model(checked.cost)
    return checked
