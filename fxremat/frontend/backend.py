"""The torch.compile backend: plans every training graph that Dynamo gives it.

``torch.compile(model, backend="fxremat", options={"budget": "6GiB"})`` comes in by the entry point
`fxremat`, `fxremat.optimize` by a `Backend` object; both do the same.
"""

from __future__ import annotations

import functools
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.errors import BudgetInfeasible, DoubleBackwardError, SymbolicSizeError
from fxremat.execute.eager import Eager
from fxremat.execute.executor import Executor
from fxremat.frontend.bypass import PlannedSteps, note_planned
from fxremat.frontend.draft import WORTH_IT, Draft
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.frontend.history import CompiledGraph, History, Origin
from fxremat.frontend.outer_loss import OuterLoss
from fxremat.measure.profile_ops import OpProfiles
from fxremat.nodes import MADE_BY_CALL
from fxremat.pipeline.observe import observers
from fxremat.pipeline.passes import compile_plan, plan, read, weigh
from fxremat.pipeline.runner import Between, State
from fxremat.pipeline.states import Grouped, Lowered, Planned, Traced
from fxremat.plan.options import Options
from fxremat.plan.plan import Plan, replay_schedules
from fxremat_solvers import Status, simulate


@dataclass
class Backend:
    """A torch.compile backend with its options.

    `step` says which graphs it takes, `history` what was planned, `steps` counts the planned steps
    that began. `between` sees the states between the passes, before the log does. `at_once` says
    that further shapes are planned at once, and well when that has become worth it.
    """

    options: Options
    step: WholeStep
    executor: Executor = field(default_factory=Eager)
    history: History = field(default_factory=History)
    profiles: OpProfiles = field(default_factory=OpProfiles)
    steps: PlannedSteps = field(default_factory=PlannedSteps)
    outer_loss: OuterLoss = field(default_factory=OuterLoss)
    between: tuple[Between, ...] = ()
    at_once: bool = True

    def __call__(self, module: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        if not torch_hooks.needs_gradients(example_inputs):
            # Nothing is held for a backward, so there is nothing to plan: it runs as traced.
            return torch_hooks.without_dynamo(module.forward)
        self.step.warn_of_the_last_shape()
        run, graph = self._compile(module, example_inputs, ahead=False)
        draft = None if graph is None else self._draft(module, graph)
        # The method: of an object torch's wrapper would keep the first attributes.
        return torch_hooks.without_dynamo(_Executable(run, graph, self.steps, draft).__call__)

    def plan_ahead(self, module: fx.GraphModule, example_inputs: Sequence[Any]) -> None:
        """Plan a graph, and check that what would be compiled keeps the plan. Nothing runs."""
        if torch_hooks.needs_gradients(example_inputs):
            self._compile(module, example_inputs, ahead=True)

    def _compile(
        self, module: fx.GraphModule, example_inputs: Sequence[Any], *, ahead: bool
    ) -> tuple[Callable[..., Any], CompiledGraph | None]:
        def trace(*, numbers: bool) -> tuple[Callable[..., Any], CompiledGraph | None]:
            torch_hooks.specialize_sizes(module, example_inputs, numbers=numbers)
            at_once = self._may_be_drafted(module, example_inputs, ahead=ahead)
            return self._trace(module, example_inputs, ahead=ahead, at_once=at_once)

        try:
            run, graph = trace(numbers=False)
        except SymbolicSizeError:
            run, graph = trace(numbers=True)
        if graph is not None:
            self.history.add(graph, ahead=ahead)
            self.outer_loss.say(graph.plan)
        return run, graph

    def _may_be_drafted(
        self, module: fx.GraphModule, example_inputs: Sequence[Any], *, ahead: bool
    ) -> bool:
        """Whether a graph may be planned at once; what is planned ahead has the time for a search.

        So has one with numbers that change: it can't be traced again from the arguments of a call,
        which have them fixed. Only the solver "auto" may be preceded: others are asked by name.
        """
        if ahead or not self.at_once or self.options.solver != "auto":
            return False
        return torch_hooks.numbers_are_fixed(module, example_inputs)

    def _trace(
        self,
        module: fx.GraphModule,
        inputs: Sequence[Any],
        *,
        ahead: bool = False,
        at_once: bool = False,
        known: Plan | None = None,
    ) -> tuple[Callable[..., Any], CompiledGraph | None]:
        """What AOTAutograd makes of a graph, and its plan; None where nothing is differentiated.

        `inputs` are Dynamo's, or real ones. `known` is the plan where the problem is the same.
        """
        started = time.perf_counter()
        planned: list[CompiledGraph] = []

        def partition(
            joint: fx.GraphModule,
            _inputs: object,
            *,
            num_fwd_outputs: int,
            static_lifetime_input_indices: Sequence[int] | None = None,
            **_unused: object,
        ) -> tuple[fx.GraphModule, fx.GraphModule]:
            self.step.check(module)
            capture_s = time.perf_counter() - started
            for node in torch_hooks.made_by_call(joint, module):
                node.meta[MADE_BY_CALL] = True
            traced = Traced(joint, num_fwd_outputs, tuple(static_lifetime_input_indices or ()))
            graph, graphs = self._plan(traced, capture_s, at_once=at_once, known=known)
            planned.append(graph)
            return graphs

        compile_graph = torch_hooks.boxed_executor if ahead else self.executor.compile
        run = torch_hooks.make_aot_backend(partition, compile_graph)(module, inputs)
        return run, planned[0] if planned else None

    def _plan(
        self, traced: Traced, capture_s: float, *, at_once: bool, known: Plan | None
    ) -> tuple[CompiledGraph, tuple[fx.GraphModule, fx.GraphModule]]:
        started = time.perf_counter()
        seconds: dict[str, float] = {}

        def keep_time(name: str, state: State, taken: float) -> State:
            seconds[name] = taken
            return state

        between = (*self.between, keep_time, *observers())
        grouped = read(traced, self.profiles, between, self.executor)
        shapes = _shapes(traced.module)
        quick = None
        if at_once and not self.history.was_planned_ahead(shapes):
            quick = self._plan_at_once(grouped, between)
        planned = quick or self._search(grouped, shapes, between, known)
        written = compile_plan(planned, between, self.executor)
        graph = CompiledGraph(
            plan=planned.plan,
            input_shapes=shapes,
            capture_s=capture_s,
            planning_s=time.perf_counter() - started,
            seconds=seconds,
            origin=Origin.SEARCHED if quick is None else Origin.QUICK,
        )
        return graph, (written.graphs.forward, written.graphs.backward)

    def _plan_at_once(self, grouped: Grouped, between: Sequence[Between]) -> Planned | None:
        """A plan by what was planned for other sizes; None without any, or where none fits."""
        neighbours = self.history.neighbours(grouped.graph)
        if not neighbours:
            return None
        like = neighbours[0].plan.graph
        options = self.options
        lowered = weigh(grouped, options.cost, self.profiles, between, self.executor, like)
        search = replay_schedules([each.plan.schedule for each in neighbours])
        try:
            return plan(lowered, options, self._largest_step(lowered), between, search)
        except BudgetInfeasible:
            return None

    def _search(
        self,
        grouped: Grouped,
        shapes: tuple[tuple[int, ...], ...],
        between: Sequence[Between],
        known: Plan | None,
    ) -> Planned:
        """The plan that is known already, or was made ahead, or one that is searched for."""
        lowered = weigh(grouped, self.options.cost, self.profiles, between, self.executor)
        problem = lowered.lowering.problem
        if known is None or known.problem != problem:
            known = self.history.take_ahead(problem, shapes)
        if known is not None:
            return Planned(known.for_lowering(lowered.lowering))
        return plan(lowered, self.options, self._largest_step(lowered), between)

    def _draft(self, module: fx.GraphModule, graph: CompiledGraph) -> Draft | None:
        """How to plan a graph well that was planned at once; None where nothing can be gained."""
        if graph.origin is not Origin.QUICK or graph.plan.solution.status is Status.OPTIMAL:
            return None
        taken = [each.planning_s for each in self.history.neighbours(graph.plan.graph)]
        search_s = graph.capture_s + min(taken, default=0.0)
        return Draft(graph, search_s, functools.partial(self._plan_well, module, graph))

    def _plan_well(
        self, module: fx.GraphModule, draft: CompiledGraph, args: tuple[Any, ...]
    ) -> tuple[Callable[..., Any] | None, CompiledGraph]:
        """What runs from now on, and its graph; None for what runs where the plan stays.

        Where that fails it is said, the plan stays, and no further one is made at once.
        """
        try:
            with torch_hooks.compiling_again():
                run, graph = self._search_again(module, draft, args)
        except Exception as error:
            self.at_once = False
            warnings.warn(
                f"a graph that was planned at once could not be planned well "
                f"({type(error).__name__}: {error}): it keeps its plan, and further shapes are "
                "searched for when they come. This is a defect of fxremat, please report it with "
                "the model",
                stacklevel=2,
            )
            run, graph = None, replace(draft, origin=Origin.KEPT)
        self.history.replace(draft, graph)
        return run, graph

    def _search_again(
        self, module: fx.GraphModule, draft: CompiledGraph, args: tuple[Any, ...]
    ) -> tuple[Callable[..., Any] | None, CompiledGraph]:
        """Search for the plan of a graph that was planned at once, and compile it if it gains.

        The search needs no trace: the graph is as it was read. `args` are those of a call.
        """
        started = time.perf_counter()
        between = (*self.between, *observers())
        grouped = Grouped(draft.plan.graph)
        lowered = weigh(grouped, self.options.cost, self.profiles, between, self.executor)
        found = plan(lowered, self.options, self._largest_step(lowered), between).plan
        as_it_is = simulate(found.problem, draft.plan.schedule).cost
        if as_it_is - found.solution.cost <= WORTH_IT * found.problem.baseline_cost:
            return None, replace(draft, origin=Origin.KEPT)
        run, graph = self._trace(module, args, known=found)
        assert graph is not None
        planning_s = time.perf_counter() - started - graph.capture_s
        return run, replace(graph, planning_s=planning_s, calls=draft.calls)

    def _largest_step(self, lowered: Lowered) -> int:
        largest = max(self.history.largest_step_bytes, lowered.baseline.peak_bytes)
        self.history.largest_step_bytes = largest
        return largest


@dataclass
class _Executable:
    """A compiled training graph, guarded against gradients of gradients; it keeps its plan.

    With a `draft` that has become due it is planned well, before it runs.
    """

    run: Callable[..., Any]
    graph: CompiledGraph | None
    steps: PlannedSteps
    draft: Draft | None = None
    ran: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, *args: Any) -> Any:
        self.steps.count += 1
        draft = self.draft
        if draft is not None and draft.is_due and not torch_hooks.profiler_is_active():
            self._plan_well(args)
        if self.graph is not None:
            self.graph.calls.count += 1
        if not self.ran:
            self.ran = True
            note_planned(args)
        results = self.run(*args)
        for result in results:
            if isinstance(result, torch.Tensor) and result.grad_fn is not None:
                result.grad_fn.register_prehook(_refuse_double_backward)
                break
        return results

    def _plan_well(self, args: tuple[Any, ...]) -> None:
        """Have it planned well, once; where that fails the step goes on by the plan there is."""
        with self.lock:
            draft, self.draft = self.draft, None
        if draft is None:  # another thread was faster
            return
        run, self.graph = draft.plan_well(args)
        self.run = run or self.run


def _refuse_double_backward(_gradients: object) -> None:
    # The autograd engine runs a backward in grad mode only under create_graph=True.
    if torch.is_grad_enabled():
        raise DoubleBackwardError(
            "create_graph=True was asked of an fxremat model: a rematerialized graph has first "
            "gradients only. Use the original model where gradients of gradients are needed"
        )


def _shapes(joint: fx.GraphModule) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(node.meta["val"].shape)
        for node in joint.graph.find_nodes(op="placeholder")
        if torch_hooks.is_primal(node) and isinstance(node.meta.get("val"), torch.Tensor)
    )
