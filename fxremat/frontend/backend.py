"""The torch.compile backend: plans every training graph that Dynamo gives it.

``torch.compile(model, backend="fxremat", options={"budget": "6GiB"})`` comes in by the entry point
`fxremat`, `fxremat.optimize` by a `Backend` object; both do the same. A graph that is a whole step
is planned when it comes; graphs that are parts of one are planned together, by `step.tracker`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.errors import (
    BudgetInfeasible,
    DoubleBackwardError,
    SymbolicSizeError,
    UnsupportedGraphError,
)
from fxremat.execute.eager import Eager
from fxremat.execute.executor import Executor
from fxremat.frontend.allocator_check import AllocatorCheck
from fxremat.frontend.bypass import PlannedSteps, note_planned
from fxremat.frontend.draft import WORTH_IT, Draft
from fxremat.frontend.faster_executor import Weighed, choose
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.frontend.history import CompiledGraph, History, Origin
from fxremat.frontend.loop_slots import chosen, loops_of
from fxremat.frontend.many_graphs import ManyGraphs
from fxremat.frontend.outer_loss import OuterLoss
from fxremat.graph import JointGraph
from fxremat.inductor.executor import Inductor
from fxremat.lower.lowering import Lowering
from fxremat.measure.profile_ops import OpProfiles
from fxremat.nodes import is_collective
from fxremat.pipeline.observe import observers
from fxremat.pipeline.partitioner import partitioner
from fxremat.pipeline.passes import compile_plan, plan, read, weigh
from fxremat.pipeline.progress import shown
from fxremat.pipeline.runner import Between, State
from fxremat.pipeline.states import Grouped, Lowered, Planned, Traced
from fxremat.plan.agree import agreed, agreed_plan, agreed_schedule, plan_key
from fxremat.plan.budget import Budget
from fxremat.plan.options import Options
from fxremat.plan.plan import Plan, follow, replay_schedules, source_line
from fxremat.policy import NOTHING
from fxremat.step.compose import Front
from fxremat.step.least import least_saved
from fxremat.step.part import Part, Run, Watch
from fxremat.step.tracker import StepTracker
from fxremat.torch_hooks import CompileAgain
from fxremat_solvers import Schedule, Status

_LOG = logging.getLogger("fxremat")

Shapes = tuple[tuple[int, ...], ...]

Planner = Callable[[Grouped, Shapes, Sequence[Between]], tuple[Planned, Origin]]
"""How one graph gets its plan."""


class _WeighedError(Exception):
    """Ends the trace of a graph that was only to be weighed."""


_backends: list[weakref.ref[Backend]] = []
_numbers = itertools.count()


def live_backends() -> list[Backend]:
    """All backends of the process that something still uses, oldest first."""
    _backends[:] = [each for each in _backends if each() is not None]
    return [backend for each in _backends if (backend := each()) is not None]


@dataclass(eq=False)
class Backend:
    """A torch.compile backend with its options.

    `step` says which graphs are whole steps; those that are not share a `tracker`, which may be
    given. `history` has what was planned, `steps` counts the planned steps that began. `between`
    sees the states between the passes, before the log does. `at_once` says that further shapes are
    planned at once, and well when that has become worth it. `why_executor` says why it is this
    executor, where that was for us to choose. `waiting` are the calls of whole steps whose backward
    is still to come. `number` counts the models and functions of the process, each of which has a
    backend.
    """

    options: Options
    step: WholeStep
    executor: Executor = field(default_factory=Eager)
    history: History = field(default_factory=History)
    profiles: OpProfiles = field(default_factory=OpProfiles)
    steps: PlannedSteps = field(default_factory=PlannedSteps)
    outer_loss: OuterLoss = field(default_factory=OuterLoss)
    many_graphs: ManyGraphs = field(default_factory=ManyGraphs)
    between: tuple[Between, ...] = ()
    at_once: bool = True
    tracker: StepTracker | None = None
    why_executor: str = ""
    waiting: weakref.WeakSet[_Backward] = field(default_factory=weakref.WeakSet["_Backward"])
    warned_of_autocast: bool = False
    number: int = field(default_factory=lambda: next(_numbers))

    def __post_init__(self) -> None:
        _backends.append(weakref.ref(self))

    @staticmethod
    def of(options: Options, step: WholeStep, tracker: StepTracker | None = None) -> Backend:
        """The backend that options ask for."""
        if options.executor == "auto" and options.policy != NOTHING:
            # A kernel makes many values at once: none of them can be kept or made again by itself.
            why = "a policy of what is kept or made again holds op by op"
            return Backend(options, step, Eager(), tracker=tracker, why_executor=why)
        executor = Eager() if options.executor == "eager" else Inductor()
        return Backend(options, step, executor, tracker=tracker)

    def __call__(self, module: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        if not torch_hooks.needs_gradients(example_inputs):
            # Nothing is held for a backward, so there is nothing to plan: it runs as traced.
            return torch_hooks.without_dynamo(module.forward)
        self.step.warn_of_the_last_shape()
        why = self.step.why_a_part(module)
        if why and self.tracker is None:
            self.track(why)
        if self.tracker is not None:
            return self._compile_part(self.tracker, module, example_inputs, why)
        run, watch, graph = self._compile(module, example_inputs, ahead=False)
        draft = None if graph is None else self._draft(graph)
        check = None if graph is None else self._allocator_check(module, example_inputs, graph)
        executable = _Executable(self, module, run, watch, graph, draft, check)
        # The method: of an object torch's wrapper would keep the first attributes.
        return torch_hooks.without_dynamo(executable.__call__)

    def track(self, why: str) -> StepTracker:
        """From now on the graphs are parts of steps."""
        if self.tracker is None:
            _LOG.warning(
                "the step is several graphs (%s). One step is recorded, which saves as little as "
                "it can, to be safe; from the one after it they are planned together. What runs "
                "uncompiled between them is counted, and can't be planned",
                why,
            )
            self.tracker = StepTracker(self.options)
        return self.tracker

    def tracker_of_call(self) -> StepTracker | None:
        """What tracks the graph that is called now; None where it is a step by itself.

        It is none where the forward of an earlier call still waits for its backward: the budget is
        for both, so that from now on they are parts of one step.
        """
        if self.tracker is None and self.waiting:
            self.track_late(
                "a forward begins while an earlier one waits for its backward; what isn't "
                "differentiated belongs under torch.no_grad()"
            )
        return self.tracker

    def track_late(self, why: str) -> None:
        """From now on the graphs are parts of steps, within a step that has begun already."""
        self.track(why).join(lambda: bool(self.waiting))

    def plan_ahead(self, module: fx.GraphModule, example_inputs: Sequence[Any]) -> None:
        """Plan a graph, and check that what would be compiled keeps the plan. Nothing runs."""
        if torch_hooks.needs_gradients(example_inputs):
            self._compile(module, example_inputs, ahead=True)

    # A graph that is a whole step.

    def _compile(
        self, module: fx.GraphModule, example_inputs: Sequence[Any], *, ahead: bool
    ) -> tuple[Run, Watch, CompiledGraph | None]:
        def trace() -> tuple[Run, Watch, CompiledGraph | None]:
            at_once = self._may_be_drafted(module, example_inputs, ahead=ahead)
            planner = self._plan_at_once_or_search if at_once else self._plan_by_search
            return self._trace(module, example_inputs, planner, ahead=ahead)

        run, watch, graph = self._with_sizes_fixed(module, example_inputs, trace)
        if graph is not None:
            self._note(graph, ahead=ahead)
            self.outer_loss.say(graph.plan)
        return run, watch, graph

    def _note(self, graph: CompiledGraph, *, ahead: bool) -> None:
        self.history.add(graph, ahead=ahead)
        self.many_graphs.say(self.history.graphs)

    def _with_sizes_fixed(
        self,
        module: fx.GraphModule,
        example_inputs: Sequence[Any],
        trace: Callable[[], tuple[Run, Watch, CompiledGraph | None]],
    ) -> tuple[Run, Watch, CompiledGraph | None]:
        torch_hooks.specialize_sizes(module, example_inputs, numbers=False)
        try:
            return trace()
        except SymbolicSizeError:
            torch_hooks.specialize_sizes(module, example_inputs, numbers=True)
            return trace()

    def _may_be_drafted(
        self, module: fx.GraphModule, example_inputs: Sequence[Any], *, ahead: bool
    ) -> bool:
        """Whether a graph may be planned at once; what is planned ahead has the time for a search.

        One with numbers that change isn't compiled again. Only the solver "auto" may be preceded:
        others are asked by name.
        """
        if ahead or not self.at_once or self.options.solver != "auto":
            return False
        return torch_hooks.numbers_are_fixed(module, example_inputs)

    def _plan_at_once_or_search(
        self, grouped: Grouped, shapes: Shapes, between: Sequence[Between]
    ) -> tuple[Planned, Origin]:
        quick = None
        if not self.history.was_planned_ahead(shapes):
            quick = self._plan_at_once(grouped, between)
        if quick is None:
            return self._plan_by_search(grouped, shapes, between)
        return _agreed(quick, Origin.QUICK)

    def _plan_by_search(
        self, grouped: Grouped, shapes: Shapes, between: Sequence[Between]
    ) -> tuple[Planned, Origin]:
        return _agreed(self._search(grouped, shapes, between), Origin.SEARCHED)

    def _trace(
        self,
        module: fx.GraphModule,
        inputs: Sequence[Any],
        planner: Planner,
        *,
        ahead: bool = False,
        is_part: bool = False,
    ) -> tuple[Run, Watch, CompiledGraph | None]:
        """What AOTAutograd makes of a graph, a watch on it, and its plan.

        `inputs` are Dynamo's, or real ones. There is no plan where nothing is differentiated.
        """
        weighed: list[JointGraph] = []
        if self.options.executor == "auto" and not self.why_executor:
            weighed = self._choose_executor(module, inputs, is_part=is_part)
        started = time.perf_counter()
        planned: list[CompiledGraph] = []
        ways: list[CompileAgain] = []
        watch = Watch()

        def halves(traced: Traced) -> tuple[fx.GraphModule, fx.GraphModule]:
            capture_s = time.perf_counter() - started
            graph, graphs = self._plan(traced, capture_s, planner, ways[-1])
            planned.append(graph)
            return graphs

        def compile_graph(module: fx.GraphModule) -> Run:
            if ahead:
                return torch_hooks.boxed_executor(module)
            run = self.executor.compile(module)
            if not planned:
                return run
            return watch.on(run, planned[0].plan.graph.num_fwd_outputs)

        try:
            partition = partitioner(module, halves, is_part=is_part)
            make = self.executor.backend(partition, compile_graph, ways.append)
            run = make(module, inputs)
        except UnsupportedGraphError as error:
            if self.options.executor != "auto" or isinstance(error, SymbolicSizeError):
                raise
            if isinstance(self.executor, Eager):
                raise
            self._run_op_by_op(str(error))
            return self._trace(module, inputs, planner, ahead=ahead, is_part=is_part)
        weighed.clear()  # Not before: what was compiled of them is taken over.
        return run, watch, planned[0] if planned else None

    def _choose_executor(
        self, module: fx.GraphModule, inputs: Sequence[Any], *, is_part: bool
    ) -> list[JointGraph]:
        """Take the faster executor for this graph, and all that come after it.

        While the graphs that were weighed are held, their kernels aren't compiled again.
        """
        graphs: list[JointGraph] = []

        def weigh_by(
            executor: Executor, module: fx.GraphModule, inputs: Sequence[Any]
        ) -> Weighed | None:
            weighed: list[Weighed] = []

            def halves(traced: Traced) -> NoReturn:
                grouped = read(traced, self.profiles, (), executor)
                lowered = weigh(grouped, self.options.cost, self.profiles, (), executor)
                graphs.append(lowered.lowering.graph)
                weighed.append(Weighed.of(lowered.lowering.graph))
                raise _WeighedError

            partition = partitioner(module, halves, is_part=is_part)
            make = executor.backend(partition, torch_hooks.boxed_executor, lambda _again: None)
            with contextlib.suppress(_WeighedError):
                make(module, inputs)
            return weighed[0] if weighed else None

        choice = choose(Inductor(), Eager(), weigh_by, module, inputs)
        if choice is not None and isinstance(choice.executor, Eager):
            self._run_op_by_op(choice.reason)
        elif choice is not None:
            self.executor, self.why_executor = choice.executor, choice.reason
        return graphs

    def _run_op_by_op(self, why: str) -> None:
        _LOG.warning("the model runs op by op from here on: %s", why)
        self.executor, self.why_executor = Eager(), why

    def _compile_again(self, graph: CompiledGraph, plan: Plan) -> tuple[Run, Watch]:
        """What runs a graph that was traced before, by another plan."""
        watch = Watch()
        between = (*self.between, *observers())

        def partition(*_unused: object, **_named: object) -> tuple[fx.GraphModule, fx.GraphModule]:
            graphs = compile_plan(Planned(plan), between, self.executor).graphs
            return graphs.forward, graphs.backward

        def compile_graph(module: fx.GraphModule) -> Run:
            return watch.on(self.executor.compile(module), plan.graph.num_fwd_outputs)

        with torch_hooks.compiling_again():
            return graph.again(partition, compile_graph), watch

    def _plan(
        self, traced: Traced, capture_s: float, planner: Planner, again: CompileAgain
    ) -> tuple[CompiledGraph, tuple[fx.GraphModule, fx.GraphModule]]:
        started = time.perf_counter()
        seconds: dict[str, float] = {}

        def keep_time(name: str, state: State, taken: float) -> State:
            seconds[name] = taken
            return state

        with shown("reading the graph") as progress:
            between = (*self.between, keep_time, progress, *observers())
            traced = self._with_loops_chosen(traced)
            grouped = read(traced, self.profiles, between, self.executor)
            shapes = _shapes(traced.module)
            planned, origin = planner(grouped, shapes, between)
            written = compile_plan(planned, between, self.executor)
        graph = CompiledGraph(
            plan=planned.plan,
            input_shapes=shapes,
            capture_s=capture_s,
            planning_s=time.perf_counter() - started,
            seconds=seconds,
            again=again,
            origin=origin,
            why_executor=self.why_executor,
        )
        return graph, (written.graphs.forward, written.graphs.backward)

    def _with_loops_chosen(self, traced: Traced) -> Traced:
        """The graph with what its loops keep chosen; as it is where that isn't ours to choose."""
        is_ours = isinstance(self.executor, Eager) and not traced.is_part
        if not is_ours or self.options.budget.nbytes is None or not loops_of(traced.module):
            return traced
        if torch_hooks.shared_store() is not None:
            return traced  # Times differ from rank to rank, and so would choices.
        options = replace(self.options, solver="greedy")

        def try_plan(candidate: Traced) -> Plan:
            grouped = read(candidate, self.profiles, (), self.executor)
            lowered = weigh(
                grouped, options.cost, self.profiles, (), self.executor, None, options.policy
            )
            return plan(lowered, options, self._largest_step(lowered)).plan

        return chosen(traced, try_plan)

    def _plan_at_once(self, grouped: Grouped, between: Sequence[Between]) -> Planned | None:
        """A plan by what was planned for other sizes; None without any, or where none fits."""
        neighbours = self.history.neighbours(grouped.graph)
        if not neighbours:
            return None
        like = neighbours[0].plan.graph
        options = self.options
        lowered = weigh(
            grouped, options.cost, self.profiles, between, self.executor, like, options.policy
        )
        search = replay_schedules([each.plan.schedule for each in neighbours])
        try:
            return plan(lowered, options, self._largest_step(lowered), between, search)
        except BudgetInfeasible:
            return None

    def _search(
        self,
        grouped: Grouped,
        shapes: Shapes,
        between: Sequence[Between],
    ) -> Planned:
        """The plan that was made ahead, or one that is searched for."""
        lowered = weigh(
            grouped,
            self.options.cost,
            self.profiles,
            between,
            self.executor,
            None,
            self.options.policy,
        )
        problem = lowered.lowering.problem
        known = self.history.take_ahead(problem, shapes)
        if known is not None:
            return Planned(known.for_lowering(lowered.lowering))
        return plan(lowered, self.options, self._largest_step(lowered), between)

    def _draft(self, graph: CompiledGraph) -> Draft | None:
        """How to plan a graph well that was planned at once; None where nothing can be gained."""
        if graph.origin is not Origin.QUICK or graph.plan.solution.status is Status.OPTIMAL:
            return None
        taken = [each.planning_s for each in self.history.neighbours(graph.plan.graph)]
        search_s = min(taken, default=0.0)
        extra_s = graph.plan.extra_seconds
        if extra_s > 0:
            # Ranks that have run it equally often plan it well at the same call.
            calls = agreed(lambda: plan_key(graph.plan, "due"), int(search_s / extra_s))
            search_s = extra_s * calls
        return Draft(graph, search_s, functools.partial(self._plan_well, graph))

    def _allocator_check(
        self, module: fx.GraphModule, inputs: Sequence[Any], graph: CompiledGraph
    ) -> AllocatorCheck | None:
        """A check of the first steps on CUDA; None where the graph can't be planned otherwise.

        Nor is there one for a budget of 1.0, which is all that the step takes. Ranks whose graphs
        communicate must run by one plan, whatever each of them measures.
        """
        device = graph.plan.graph.device
        if device.type != "cuda" or self.options.budget.fraction == 1:
            return None
        if not torch_hooks.numbers_are_fixed(module, inputs):
            return None
        if any(is_collective(node) for node in graph.plan.graph.module.graph.nodes):
            return None
        return AllocatorCheck(device, graph.plan.budget_bytes, graph.plan.peak_bytes)

    def plan_within(
        self, graph: CompiledGraph, budget_bytes: int
    ) -> tuple[Run, Watch, CompiledGraph] | None:
        """A compiled graph planned again, within fewer bytes than its budget; None if none fits."""
        if budget_bytes <= 0:
            return None
        started = time.perf_counter()
        lowered, between = self._weigh_again(graph)
        options = replace(self.options, budget=Budget(nbytes=budget_bytes))
        try:
            found = plan(lowered, options, 0, between).plan
        except BudgetInfeasible:
            return None
        found = replace(found, budget_bytes=graph.plan.budget_bytes, options=self.options)
        run, watch = self._compile_again(graph, found)
        made = replace(graph, plan=found, planning_s=time.perf_counter() - started)
        self.history.replace(graph, made)
        return run, watch, made

    def _plan_well(self, draft: CompiledGraph) -> tuple[tuple[Run, Watch] | None, CompiledGraph]:
        """What runs from now on, and its graph; None for what runs where the plan stays.

        Where that fails it is said, the plan stays, and no further one is made at once.
        """
        try:
            with torch_hooks.compiling_again(), shown("searching for a better plan"):
                run, graph = self._search_again(draft)
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

    def _search_again(self, draft: CompiledGraph) -> tuple[tuple[Run, Watch] | None, CompiledGraph]:
        """Search for the plan of a graph that was planned at once, and compile it if it gains.

        That needs no trace: the graph is as it was read.
        """
        started = time.perf_counter()
        lowered, between = self._weigh_again(draft)
        found = plan(lowered, self.options, self._largest_step(lowered), between).plan
        as_it_is = found.with_schedule(draft.plan.schedule)
        gain = as_it_is.solution.cost - found.solution.cost
        worth_it = gain > WORTH_IT * found.problem.baseline_cost
        found, _ = agreed_plan(found if worth_it else as_it_is, Origin.SEARCHED, "planned well")
        if found.schedule == as_it_is.schedule:
            return None, replace(draft, origin=Origin.KEPT)
        run = self._compile_again(draft, found)
        planning_s = time.perf_counter() - started
        return run, replace(draft, plan=found, planning_s=planning_s, origin=Origin.SEARCHED)

    def _weigh_again(self, graph: CompiledGraph) -> tuple[Lowered, Sequence[Between]]:
        """A compiled graph as it is planned, by what is known of its operations now."""
        between = (*self.between, *observers())
        grouped = Grouped(graph.plan.graph)
        return weigh(
            grouped,
            self.options.cost,
            self.profiles,
            between,
            self.executor,
            None,
            self.options.policy,
        ), between

    def _weigh(
        self, grouped: Grouped, between: Sequence[Between], like: JointGraph | None = None
    ) -> Lowered:
        cost, policy = self.options.cost, self.options.policy
        return weigh(grouped, cost, self.profiles, between, self.executor, like, policy)

    def _largest_step(self, lowered: Lowered) -> int:
        largest = max(self.history.largest_step_bytes, lowered.baseline.peak_bytes)
        self.history.largest_step_bytes = largest
        return largest

    # A graph that is a part of a step.

    def _compile_part(
        self,
        tracker: StepTracker,
        module: fx.GraphModule,
        example_inputs: Sequence[Any],
        why: str,
    ) -> Callable[..., Any]:
        """A part, by the plan that saves the least; as it is where it can't be planned."""

        def trace() -> tuple[Run, Watch, CompiledGraph | None]:
            return self._trace(module, example_inputs, self._plan_least, is_part=True)

        with tracker.compiling():
            changes = torch_hooks.numbers_are_fixed(module, example_inputs)
            try:
                run, watch, graph = self._with_sizes_fixed(module, example_inputs, trace)
            except UnsupportedGraphError as error:
                tracker.say_once(
                    f"a graph of the step runs as it is, without a plan: {error}. What it holds is "
                    "counted"
                )
                return torch_hooks.without_dynamo(module.forward)
            part = None if graph is None else self._part(graph, run, watch, changes, why)
        if graph is not None:
            self._note(graph, ahead=False)
        executable = _Executable(self, module, run, watch, graph, part=part)
        return torch_hooks.without_dynamo(executable.__call__)

    def _plan_least(
        self, grouped: Grouped, _shapes: Shapes, between: Sequence[Between]
    ) -> tuple[Planned, Origin]:
        """Plans a graph by the schedule that saves the least."""
        lowered = weigh(
            grouped,
            self.options.cost,
            self.profiles,
            between,
            self.executor,
            None,
            self.options.policy,
        )
        least = self._least(lowered.lowering)
        followed = follow(lowered.lowering, lowered.baseline, self.options, least)
        return Planned(followed), Origin.PART

    def _least(self, lowering: Lowering) -> Schedule:
        """The schedule that saves the least, the same on every rank."""
        return agreed_schedule(lowering, least_saved(lowering), self.options, "least")

    def _part(
        self,
        graph: CompiledGraph,
        run: Run,
        watch: Watch,
        changes: bool,
        why: str,
    ) -> Part:
        """What was compiled of a graph as a part of a step."""
        lowering = graph.plan.lowering
        least = graph.plan.schedule
        if lowering.graph.memory.holds_outputs:
            # It was taken for a whole step.
            memory = replace(lowering.graph.memory, holds_outputs=False)
            lowering = Lowering.apply(replace(lowering.graph, memory=memory))
            if changes:  # Else it can't be compiled again, and runs by the plan it has.
                least = self._least(lowering)

        def compile_by(schedule: Schedule) -> tuple[Run, Watch]:
            plan = follow(lowering, graph.plan.baseline, self.options, schedule)
            return self._compile_again(graph, plan)

        return Part(
            front=Front.of(lowering, least, changes=changes),
            runs={graph.plan.schedule.ops: (run, watch)},
            compile=compile_by if changes else None,
            name=described(lowering.graph),
            ends_with=why,
        )

    def part_of(self, executable: _Executable) -> Part | None:
        """A graph that was taken for a whole step, as a part of one."""
        graph = executable.graph
        if graph is None:
            return None
        changes = torch_hooks.numbers_are_fixed(executable.module, ())
        return self._part(graph, executable.run, executable.watch, changes, "")


@dataclass
class _Executable:
    """A compiled training graph, guarded against gradients of gradients; it keeps its plan.

    With a `draft` that has become due it is planned well, before it runs. As a `part` of a step it
    runs by what the step's tracker says.
    """

    backend: Backend
    module: fx.GraphModule
    run: Run
    watch: Watch
    graph: CompiledGraph | None
    draft: Draft | None = None
    check: AllocatorCheck | None = None
    part: Part | None = None
    ran: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, *args: Any) -> Any:
        self.backend.steps.count += 1
        if self.graph is not None:
            self.graph.calls.count += 1
        if not self.ran:
            self.ran = True
            note_planned(args)
        tracker = self.backend.tracker_of_call()
        if tracker is not None and self.part is None:
            self.part = self.backend.part_of(self)
        if tracker is not None and self.part is not None:
            call, run = tracker.forward_begins(self.part, args)
            results = run(*args)
            node = torch_hooks.compiled_backward_of(results)
            tracker.forward_ended(call, node)
        else:
            draft = self.draft
            if draft is not None and draft.is_due and not torch_hooks.profiler_is_active():
                self._plan_well()
            if self.check is not None:
                self._hold_to_budget(self.check)
            results = self.run(*args)
            node = torch_hooks.compiled_backward_of(results)
        if node is not None:
            self._listen(node, is_whole=tracker is None)
        return results

    def _listen(self, node: Any, *, is_whole: bool) -> None:
        """Hear the backward of a call begin."""
        torch_hooks.let_graph_be_kept(node)
        backward = _Backward(self.backend)
        node.register_prehook(backward)
        if is_whole:
            self.backend.waiting.add(backward)

    def _hold_to_budget(self, check: AllocatorCheck) -> None:
        """Plan again what took more than its budget, and measure the step that begins."""
        with self.lock:
            within = check.within_bytes
            if within is not None and self.graph is not None:
                found = self.backend.plan_within(self.graph, within)
                if found is None:
                    check.give_up()
                else:
                    self.run, self.watch, self.graph = found
                    check.planned_again(self.graph.plan.peak_bytes)
            if check.done:
                self.check = None
        check.begins(self.watch)

    def _plan_well(self) -> None:
        """Have it planned well, once; where that fails the step goes on by the plan there is."""
        with self.lock:
            draft, self.draft = self.draft, None
        if draft is None:  # another thread was faster
            return
        found, self.graph = draft.plan_well()
        if found is not None:
            self.run, self.watch = found
            if self.check is not None:
                self.check = replace(self.check, planned_bytes=self.graph.plan.peak_bytes)


@dataclass(eq=False)
class _Backward:
    """A hook that runs before the backward of one call, and lives as long as its graph does.

    That of a whole step is among those that are waiting, until the backward begins.
    """

    backend: Backend

    def __call__(self, _gradients: object) -> None:
        # The autograd engine runs a backward in grad mode only under create_graph=True.
        if torch.is_grad_enabled():
            raise DoubleBackwardError(
                "create_graph=True was asked of an fxremat model: a rematerialized graph has first "
                "gradients only. Use the original model where gradients of gradients are needed"
            )
        backend = self.backend
        if torch_hooks.autocast_is_on() and not backend.warned_of_autocast:
            backend.warned_of_autocast = True
            warnings.warn(
                "backward was called under autocast: a planned backward is traced outside of it, "
                "as torch recommends to call it, so gradients are rounded otherwise than in "
                "eager. End the autocast block after the forward",
                stacklevel=2,
            )
        if not torch_hooks.keeps_graph():
            backend.waiting.discard(self)
        elif backend.tracker is None:
            backend.track_late("retain_graph=True: a backward keeps what its forward saved")


def _agreed(found: Planned, origin: Origin) -> tuple[Planned, Origin]:
    """A plan as all ranks follow it, and how it was found by the one that was first."""
    followed, its_origin = agreed_plan(found.plan, origin)
    return Planned(followed), Origin(its_origin)


def _shapes(joint: fx.GraphModule) -> Shapes:
    return tuple(
        tuple(node.meta["val"].shape)
        for node in joint.graph.find_nodes(op="placeholder")
        if torch_hooks.is_primal(node) and isinstance(node.meta.get("val"), torch.Tensor)
    )


def described(graph: JointGraph) -> str:
    """Where a graph begins and ends in the user's code."""
    lines = [line for op in graph.forward for n in op.nodes if (line := source_line(n))]
    if not lines:
        return f"{len(graph.forward)} operations"
    return lines[0] if lines[0] == lines[-1] else f"{lines[0]} ... {lines[-1]}"
