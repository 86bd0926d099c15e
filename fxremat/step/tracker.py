"""Which plan each call of a step runs by: record, plan together, run.

A step is what happens from the first call of a part to the end of the backward after which none
waits for its own. The first step of a kind runs by the plans that save the least, and is recorded;
from then on steps that make the same calls run by plans that were made for all of them together.
The first of these is recorded, too, and planned once more where uncompiled code took more.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import warnings
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fxremat import torch_hooks
from fxremat.errors import BudgetInfeasible
from fxremat.measure.recorder import Recorder, start_recorder
from fxremat.pipeline.progress import shown
from fxremat.plan.kept import kept, recall_or_search
from fxremat.plan.options import Options
from fxremat.plan.plan import search_threads
from fxremat.step.agree import agreed_budget, agreed_step
from fxremat.step.compose import StepPlan, peak_under, plan_calls
from fxremat.step.part import Part, Run, is_first_accumulation
from fxremat.step.parts import Outputs, PartPlan
from fxremat.step.record import Kind, Mark, Moment, corrected, moments_of
from fxremat_solvers import SOLVERS, RematProblem, Solution, SolveOptions, solve

# So many steps without any plan are said.
_UNPLANNED_STEPS = 5
# How many steps are recorded to meet one again whose calls were new.
_TRIES = 4
# How often a kind of step is planned again. Another plan may leave other rests of the allocator's.
_CORRECTIONS = 3
# Kinds of steps whose plans are kept; further ones take the place of the oldest.
_KINDS_LIMIT = 64

_numbers = itertools.count()

Holders = Callable[[], int]
"""How many hold a storage."""

Key = tuple[int, bool]
"""A call of a step: the number of its part, and whether its gradients are the first."""


class _Held:
    """Alive as long as autograd's graph of a call is."""


@dataclass(eq=False)
class Call:
    """One forward of a part, and its backward where that comes."""

    part: Part
    plan: PartPlan
    first: bool
    entry: int
    held: weakref.ref[_Held] | None = None
    outputs: dict[int, tuple[int, Holders]] = field(default_factory=dict[int, tuple[int, Holders]])
    tangents: list[tuple[int, Holders]] = field(default_factory=list[tuple[int, Holders]])
    handed_over: int = 0
    waits: bool = True
    went_back: bool = False

    @property
    def key(self) -> Key:
        return self.part.number, self.first

    def note_outputs(self, results: Sequence[Any]) -> None:
        """What AOTAutograd's forward returned."""
        for position, value in self.part.output_values.items():
            result = results[position]
            if isinstance(result, torch.Tensor):
                holders = torch_hooks.storage_holders(result)
                # What is a residual, too, will be held by the graph where the result is now.
                own = holders() if value in self.plan.kept_outputs else 0
                self.outputs[value] = own, holders

    def note_tangents(self, gradients: Sequence[Any]) -> None:
        """What its backward is given."""
        self.tangents = [
            (each.untyped_storage().nbytes(), torch_hooks.storage_holders(each))
            for each in gradients
            if isinstance(each, torch.Tensor)
        ]

    def backward_ended(self) -> None:
        """Its backward has run; it may run again, where its graph is kept."""
        self.went_back = True
        self.handed_over = sum(nbytes for nbytes, holders in self.tangents if not holders())
        self.waits = torch_hooks.keeps_graph()

    @property
    def is_waiting(self) -> bool:
        """Whether it holds its residuals."""
        return self.waits and self.held is not None and self.held() is not None

    def alive(self) -> Outputs:
        """The outputs whose memory something else holds."""
        return frozenset(v for v, (own, holders) in self.outputs.items() if holders() > own)


@dataclass(eq=False)
class KindOfStep:
    """Steps that make the same calls: what they hold, and their plan once there is one.

    `compiled` says that graphs were compiled in the one that was recorded, which may hold more.
    `checked` says that a step by its plan kept to it, or that no further one is held against it.
    `corrections` counts how often it was planned again as a step had taken more, and `missed` the
    steps that were recorded to be held against its plan, and were of others.
    """

    parts: tuple[weakref.ref[Part], ...]
    keys: tuple[Key, ...]
    moments: tuple[Moment, ...]
    compiled: bool = False
    plan: StepPlan | None = None
    checked: bool = False
    corrections: int = 0
    missed: int = 0


@dataclass(eq=False)
class _Step:
    """A step that goes on, or has ended and wasn't finished yet.

    `safely` says that its calls run by the least plans; else by those of `kind`, where it is known.
    `is_new` says that it makes calls that no kind does.
    `earlier` says whether calls still wait that were made before the tracker was there.
    `given_bytes` is what its first call was given that was made of parameters before it.
    """

    safely: bool
    earlier: Callable[[], bool] = lambda: False
    given_bytes: int = 0
    calls: list[Call] = field(default_factory=list[Call])
    marks: list[Mark] = field(default_factory=list[Mark])
    recorder: Recorder | None = None
    kind: KindOfStep | None = None
    is_new: bool = False
    compiled: bool = False
    ended: bool = False
    backward_runs: bool = False
    hook: torch_hooks.Removable | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a call's backward is still to come.

        One that a backward has passed by is not waited for, as nothing came of it: that of a later
        call, or of one made in the same call of the function around them. But where it came late
        before, as a generator's does after its discriminator's, it is.
        """
        passed = {call.entry for call in self.calls if call.went_back}
        passed_by = False
        for call in reversed(self.calls):
            passed_by = passed_by or call.went_back
            if call.is_waiting and (
                call.part.comes_late or not (passed_by or call.entry in passed)
            ):
                return True
        return not passed_by and self.earlier()


@dataclass(eq=False)
class StepTracker:
    """The steps of all the parts that share a budget.

    `largest_step_bytes` is the largest step memory, with nothing recomputed, of all kinds seen.
    `refused` has the steps that the budget can't hold, by their calls, and what was raised then.
    `number` is the same on all ranks of a distributed run, which make theirs in the same order.
    """

    options: Options
    kinds: list[KindOfStep] = field(default_factory=list[KindOfStep])
    refused: dict[tuple[Key, ...], BudgetInfeasible] = field(
        default_factory=dict[tuple[Key, ...], BudgetInfeasible]
    )
    largest_step_bytes: int = 0
    said: set[str] = field(default_factory=set[str])
    number: int = field(default_factory=lambda: next(_numbers))
    _step: _Step | None = None
    _entered: int = 0
    _entries: int = 0
    _tries: int = 0
    _unplanned: int = 0
    _met: KindOfStep | None = None  # that of the last step

    # What a step does, in the order in which it does it.

    def join(self, earlier: Callable[[], bool]) -> None:
        """Come into a step that has begun: it goes on by the least plans, and isn't recorded."""
        self._step = _Step(safely=True, earlier=earlier)

    @contextlib.contextmanager
    def inside(self, device: torch.device) -> Generator[None, None, None]:
        """Around the forward of a function whose graphs are the parts."""
        if not self._entered and not self._goes_on():
            self._begin(device)
        self._entered += 1
        self._entries += 1
        try:
            yield
        finally:
            self._entered -= 1

    @contextlib.contextmanager
    def compiling(self) -> Generator[None, None, None]:
        """Around a compilation, which is no part of the step."""
        if self._step is not None:
            self._step.compiled = True
        self._mark(Kind.APART)
        try:
            yield
        finally:
            self._mark(Kind.OUTSIDE)

    def forward_begins(self, part: Part, args: tuple[Any, ...]) -> tuple[Call, Run]:
        """A part is called: by which plan, and what runs it."""
        if not self._entered and not self._goes_on():
            self._begin(part.device)
            if self._step is not None:
                self._step.given_bytes = _made_before(args)
        step = self._step
        assert step is not None
        first = is_first_accumulation(args)
        plan = self._plan_for(step, (part.number, first), part.device) or part.front.least
        if part.has(plan):
            run, watch = part.run_by(plan)
        else:
            with self.compiling():
                run, watch = part.run_by(plan)
        self._entries += not self._entered
        call = Call(part, plan, first, self._entries)
        step.calls.append(call)
        watch.outputs = call.note_outputs
        self._mark(Kind.FORWARD, call)
        return call, run

    def forward_ended(self, call: Call, node: Any) -> None:
        """A part has returned its results, which have this autograd node, to who called it."""
        if node is not None:
            held = _Held()
            call.held = weakref.ref(held, self._graph_is_gone)

            def backward_begins(gradients: Sequence[Any], _held: _Held = held) -> None:
                self._backward_begins(call, gradients)

            node.register_prehook(backward_begins)
        self._mark(Kind.OUTSIDE)

    def _backward_begins(self, call: Call, gradients: Sequence[Any]) -> None:
        step = self._step
        if step is None or call not in step.calls:
            if not call.part.comes_late:
                # Its step was taken to have ended: those that were recorded are only halves.
                call.part.comes_late = True
                self.kinds.clear()
            return
        step.ended = False
        call.note_tangents(gradients)
        _, watch = call.part.runs[call.plan.schedule.ops]

        def backward_ran() -> None:
            call.backward_ended()
            self._mark(Kind.OUTSIDE)

        watch.backward_ran = backward_ran
        if not step.backward_runs:
            step.backward_runs = True
            torch_hooks.when_backward_ends(self._all_accumulated)
        self._mark(Kind.BACKWARD, call)

    def _all_accumulated(self) -> None:
        step = self._step
        if step is None:
            return
        step.backward_runs = False
        self._mark(Kind.OUTSIDE)
        if self._entered or step.is_waiting:
            return
        step.ended = True
        if step.recorder is not None and step.hook is None:
            # A recording can't end within the backward that it sees.
            step.hook = torch_hooks.call_before_optimizers(self._finish)

    def _graph_is_gone(self, _held: object) -> None:
        step = self._step
        if step is not None and step.ended and not torch_hooks.in_backward():
            self._finish()

    def say_once(self, message: str) -> None:
        """Warn of what happens in every step, once."""
        if message not in self.said:
            self.said.add(message)
            warnings.warn(message, stacklevel=3)

    # Which plan.

    def _plan_for(self, step: _Step, key: Key, device: torch.device) -> PartPlan | None:
        """The plan of the next call; None for the least one. Raises `BudgetInfeasible`."""
        keys = (*(call.key for call in step.calls), key)
        if keys in self.refused:
            # Not when it began: a step of fewer calls, or of others, may fit.
            self._unplanned = 0
            raise copy.copy(self.refused[keys])
        if step.safely:
            return None
        taken = tuple(call.plan for call in step.calls)
        for kind in self._candidates(step):
            plan = kind.plan
            if plan and kind.keys[: len(keys)] == keys and _goes_on_by(plan, taken):
                step.kind = kind
                return plan.plans[len(taken)]
        # No step has made these calls before. This one goes on safely; it is recorded where it has
        # just begun, else one of the next that are like it.
        step.kind = None
        step.safely = step.is_new = True
        if not step.calls and step.recorder is None:
            self._start_recorder(step, device)
        return None

    def _candidates(self, step: _Step) -> Generator[KindOfStep, None, None]:
        """The kind that a step was of so far, then all, the longest first.

        How long a step gets isn't known when it begins. Its first calls run by the plans of the
        longest that begins so, for more is held in that.
        """
        if step.kind is not None:
            yield step.kind
        yield from sorted(self.kinds, key=lambda kind: len(kind.keys), reverse=True)

    # From one step to the next.

    def settle(self) -> None:
        """Note the step that has ended, and plan where that is due. Raises `BudgetInfeasible`."""
        self._finish()
        for kind in tuple(self.kinds):
            if kind.plan is None:
                self._make_plan(kind)

    @property
    def is_settled(self) -> bool:
        """Whether the last step ran by a plan that was held against the allocator."""
        met = self._met
        return met is not None and met in self.kinds and met.plan is not None and met.checked

    def _goes_on(self) -> bool:
        step = self._step
        if step is None:
            return False
        return torch_hooks.in_backward() or (not step.ended and step.is_waiting)

    def _begin(self, device: torch.device) -> None:
        """A new step."""
        self.settle()
        self._unplanned = 0 if any(kind.plan for kind in self.kinds) else self._unplanned + 1
        if self._unplanned > _UNPLANNED_STEPS:
            self.say_once(
                f"{_UNPLANNED_STEPS} steps of several graphs ran without a plan for all of them, "
                "each graph saving as little as it can: no budget was checked. Steps are planned "
                "once one was recorded from its begin to the end of its backward, on the CPU not "
                "under a profiler (fxremat.measure_peak is one), in which the calls of the next "
                "one are made"
            )
        record = not self.kinds or self._tries > 0
        self._tries -= self._tries > 0
        step = self._step = _Step(safely=record)
        if record or not all(kind.checked for kind in self.kinds):
            self._start_recorder(step, device)
            # What can't be recorded now runs by the plans there are.
            step.safely = record and (step.recorder is not None or not self.kinds)

    def _start_recorder(self, step: _Step, device: torch.device) -> None:
        step.recorder = start_recorder(device, self._gives_way)
        if step.recorder is not None:
            step.marks.append(self._mark_of(step, Kind.OUTSIDE))

    def _gives_way(self) -> bool:
        """Something else needs torch's profiler: whether it may have it."""
        step = self._step
        if step is None or step.ended:
            self._finish()
            return True
        return not self._entered and not step.is_waiting

    def _finish(self, *_unused: object) -> None:
        """Note what a step held."""
        step, self._step = self._step, None
        if step is None:
            return
        if step.is_new and step.ended:  # Forwards that are never differentiated are none to meet.
            self._tries = _TRIES
        keys = tuple(call.key for call in step.calls)
        known = next((kind for kind in self.kinds if kind.keys == keys), None)
        self._met = known if step.ended else None
        if step.recorder is None:
            return
        if step.hook is not None:
            step.hook.remove()
        levels = step.recorder.finish()
        # Not noted: one that was left halfway, or whose recording was interrupted.
        if not step.ended or len(levels.at_mark) != len(step.marks):
            return
        step.marks[-1] = replace(step.marks[-1], kind=Kind.APART)
        plans = [call.plan for call in step.calls]
        handed_over = {index: call.handed_over for index, call in enumerate(step.calls)}
        moments = tuple(
            replace(each, outside_bytes=each.outside_bytes + step.given_bytes)
            for each in moments_of(step.marks, levels, plans, handed_over)
        )
        if known is not None:
            if known is step.kind and not known.checked:
                self._check(known, moments)
            elif not step.safely:
                known.checked = True  # It runs by the plans of a longer kind.
            for other in self.kinds:
                # One that doesn't come again, as its graphs were compiled anew, isn't waited for.
                other.missed += other is not known
                other.checked = other.checked or other.missed >= _TRIES
        elif all(call.plan is call.part.front.least for call in step.calls):
            self._tries = 0
            parts = tuple(weakref.ref(call.part) for call in step.calls)
            kind = KindOfStep(parts, keys, moments, step.compiled)
            self.kinds = [kind, *self.kinds[: _KINDS_LIMIT - 1]]
            self._met = kind

    def _check(self, kind: KindOfStep, moments: tuple[Moment, ...]) -> None:
        """Hold a planned step against its plan; plan again, a few times, where it took more."""
        kind.checked = True
        plan = kind.plan
        if plan is None:
            return
        measured = peak_under(moments, plan.plans)
        same = [m.mark.call for m in moments] == [m.mark.call for m in kind.moments]
        if measured <= plan.budget_bytes or not same:
            return
        last = kind.corrections == _CORRECTIONS
        warnings.warn(
            f"a step took {measured:,} B where {plan.peak_bytes:,} B were planned, under a budget "
            f"of {plan.budget_bytes:,} B: code outside of its graphs held more than in the step "
            "that was recorded, or CUDA's allocator handed out more than was asked of it. "
            + (
                "That was planned for as often as it is tried; give a lower budget"
                if last
                else "It is planned once more, with what was measured"
            ),
            stacklevel=2,
        )
        if last:
            return
        kind.moments = corrected(kind.moments, moments)
        kind.plan, kind.checked = None, False
        kind.corrections += 1

    def _make_plan(self, kind: KindOfStep) -> None:
        parts = [part() for part in kind.parts]
        fronts = [part.front for part in parts if part is not None]
        if len(fronts) != len(parts):
            # A graph was let go of since: what takes its place is recorded.
            self.kinds.remove(kind)
            return
        options, largest = self.options, self.largest_step_bytes
        # Which steps, whether gradients are the first ones, whether it is planned once more.
        purpose = f"{self.number} {[first for _, first in kind.keys]} {kind.corrections}"
        budget = agreed_budget(kind.moments, fronts, options, largest, purpose)
        with shown(f"planning a step of {len(fronts)} graphs"):
            plan = plan_calls(kind.moments, fronts, budget, largest, self._walk, self._search)
        plan = agreed_step(plan, fronts, options, purpose)
        if plan.baseline_peak_bytes > self.largest_step_bytes:
            self.largest_step_bytes = plan.baseline_peak_bytes
            self.refused.clear()  # A budget that is a share of it has grown.
        if plan.fits:
            kind.plan = plan
            return
        # Another step, of a smaller batch, may fit, and begins where this one isn't known.
        self.kinds.remove(kind)
        if not kind.compiled:
            error = infeasible(plan)
            self.refused = {**dict(list(self.refused.items())[-_KINDS_LIMIT:]), kind.keys: error}
            raise copy.copy(error)
        # What a compilation leaves behind is held until later; the next step tells.
        self._tries = _TRIES

    def _walk(self, problem: RematProblem, budget_bytes: int) -> Solution:
        """A plan of one part in a hundredth of a second."""
        return SOLVERS["greedy"].run(problem, budget_bytes, SolveOptions("greedy"))

    def _search(self, problem: RematProblem, budget_bytes: int) -> Solution:
        """A plan of one part, without a proof: the step's bound is one over the fronts."""
        options = self.options
        if not SOLVERS[options.solver].has_presets:
            return recall_or_search(problem, budget_bytes, options)
        return kept(_without_proof, "part")(problem, budget_bytes, options)

    # Marks.

    def _mark(self, kind: Kind, call: Call | None = None) -> None:
        step = self._step
        if step is not None and step.recorder is not None:
            step.marks.append(self._mark_of(step, kind, call))
            step.recorder.mark()

    @staticmethod
    def _mark_of(step: _Step, kind: Kind, running: Call | None = None) -> Mark:
        waiting = {
            index: call.alive()
            for index, call in enumerate(step.calls)
            if call is not running and call.is_waiting
        }
        if running is None:
            return Mark(kind, -1, frozenset(), waiting)
        number = step.calls.index(running)
        if kind is not Kind.BACKWARD:
            return Mark(kind, number, frozenset(), waiting)
        return Mark(kind, number, running.alive(), waiting, torch_hooks.keeps_graph())


def _without_proof(problem: RematProblem, budget_bytes: int, options: Options) -> Solution:
    # A step's parts are planned at many budgets each.
    preset = "fast" if options.preset == "thorough" else "brief"
    chosen = SolveOptions("auto", preset, options.time_limit_s, options.seed, prove=False)
    with search_threads(options):
        return solve(problem, budget_bytes, chosen)


def _made_before(args: Sequence[Any]) -> int:
    """The bytes of arguments that code before the step's first graph made of what is trained.

    They are the step's, and there before it is recorded. To be safe they count to its end.
    """
    storages = {
        arg.untyped_storage().data_ptr(): arg.untyped_storage().nbytes()
        for arg in args
        if isinstance(arg, torch.Tensor) and arg.grad_fn is not None
    }
    return sum(storages.values())


def _goes_on_by(plan: StepPlan, taken: tuple[PartPlan, ...]) -> bool:
    """Whether a step that has begun, maybe by other plans, can go on by this one."""
    if all(mine is its for mine, its in zip(taken, plan.plans, strict=False)):
        return True
    return peak_under(plan.moments, (*taken, *plan.plans[len(taken) :])) <= plan.budget_bytes


def infeasible(plan: StepPlan) -> BudgetInfeasible:
    """The error that says what a step needs at least, and what of that is not the parts'."""
    worst = max(plan.moments, key=lambda moment: moment.bytes_under(plan.plans))
    parts = worst.bytes_under(plan.plans) - worst.outside_bytes
    return BudgetInfeasible(
        f"the budget of {plan.budget_bytes:,} bytes can't be met by this step of "
        f"{len(plan.plans)} graphs: the smallest that was reached is {plan.peak_bytes:,} bytes. "
        f"Then {worst.outside_bytes:,} B are held outside of the graphs (by code that isn't "
        f"compiled, what graphs pass on to each other, gradients) and {parts:,} B by the graphs "
        f"themselves. Give a budget of at least {plan.peak_bytes} bytes, a smaller batch, or bring "
        "more of the step into its graphs",
        budget_bytes=plan.budget_bytes,
        floor_bytes=plan.peak_bytes,
        holders=(("outside of the graphs", worst.outside_bytes), ("graphs", parts)),
    )
