"""One plan for each call of a step, under one budget.

Each part has a front of plans, which starts with a grid of limits and grows where the step wants a
plan between those there are (column generation): the relaxed program says what each call could
have, and the part is solved for that, by a quick search. Those that the integer program then picks,
of large parts, are searched for once more, thoroughly, in no more memory.

Limits: the bound is one over the fronts, not over all schedules of the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fxremat.lower.lowering import Lowering
from fxremat.plan.budget import Budget
from fxremat.step.limits import Limits, limited
from fxremat.step.parts import Outputs, PartPlan, part_plan
from fxremat.step.record import Kind, Moment
from fxremat_solvers import RematProblem, Schedule, Solution, baseline
from fxremat_solvers.compose import Choice, Composition, compose, shares

Search = Callable[[RematProblem, int], Solution]
"""What finds a schedule for a problem and a budget in bytes."""


@dataclass(frozen=True)
class Tuning:
    """`saved_levels` between the least and the most that can be saved, each with a tight and a
    loose limit for backward; then `rounds` of at most `wanted` plans a part, while a round gains
    `worth_it` of the step. A plan of a part of more than `large_ops`, whose recomputation takes
    `worth_more` of the step, is searched for once more.

    On the blocks of GPT-2, Llama, BERT and T5 (80 to 140 ops) at 0.7 and 0.5 of their step, a
    thorough search in place of the walks never led to a cheaper step by more than 0.01 points, and
    took fifty times as long. 24 levels gained 0.4 points on T5 over 12, and nothing elsewhere.
    """

    saved_levels: int = 24
    rounds: int = 3
    wanted: int = 3
    worth_it: float = 0.001
    large_ops: int = 200
    worth_more: float = 0.01


TUNING = Tuning()


@dataclass
class Front:
    """The plans of a part that are known: the least recomputed, the least saved, and others.

    One that never `changes` can only run by the second. `baseline` recomputes nothing, which no
    plan may do where something must be recomputed.
    """

    lowering: Lowering
    baseline: PartPlan
    known: list[PartPlan]
    changes: bool = True
    solved: set[tuple[Limits, frozenset[int]]] = field(
        default_factory=set[tuple[Limits, frozenset[int]]]
    )

    @staticmethod
    def of(lowering: Lowering, least: Schedule, *, changes: bool = True) -> Front:
        """With the schedule that saves the least."""
        plain = lowering.plain
        as_it_is = part_plan(plain, baseline(plain.problem))
        cheapest = as_it_is
        if plain is not lowering:
            cheapest = part_plan(lowering, baseline(lowering.problem))
        return Front(lowering, as_it_is, [cheapest, part_plan(lowering, least)], changes)

    @property
    def cheapest(self) -> PartPlan:
        return self.known[0]

    @property
    def least(self) -> PartPlan:
        return self.known[1]

    @property
    def plans(self) -> list[PartPlan]:
        """Those that it can run by, without the ones that another is no worse than."""
        if not self.changes:
            return [self.least]
        figures = [_figures(plan, frozenset(self.lowering.outputs)) for plan in self.known]
        order = sorted(range(len(figures)), key=figures.__getitem__)
        kept: list[int] = []
        for k in order:
            if all(any(a > b for a, b in zip(figures[i], figures[k], strict=True)) for i in kept):
                kept.append(k)
        return [self.known[k] for k in sorted(kept)]

    def add(self, limits: Limits, alive: frozenset[int], search: Search) -> bool:
        """Solve the part under limits, if it wasn't; what is found is added where it is new."""
        if not self.changes or (limits, alive) in self.solved:
            return False
        self.solved.add((limits, alive))
        problem = limited(self.lowering, limits, alive)
        before = len(self.known)
        # Where nothing is within the limits: the lowest that there is, to come nearer.
        found = search(problem.problem, problem.budget_bytes).schedule
        self.plan_by(problem.schedule_of_part(found))
        return len(self.known) > before

    def grow(self, search: Search) -> None:
        """Solve the part under a grid of limits, for a step that it is all of."""
        for limits in _grid(self):
            self.add(limits, frozenset(), search)

    def plan_by(self, schedule: Schedule) -> PartPlan:
        """The plan by a schedule, which is added where it is new."""
        plan = next((each for each in self.known if each.schedule == schedule), None)
        if plan is None:
            plan = part_plan(self.lowering, schedule)
            self.known.append(plan)
        return plan


def _figures(plan: PartPlan, outputs: frozenset[int]) -> tuple[float, ...]:
    """What a plan costs and takes, where nothing else holds its outputs and where all are held."""
    held = [frozenset[int](), outputs]
    saved = [plan.saved_bytes(alive) for alive in held]
    backward = [plan.backward_peak(alive, 0) for alive in held]
    return plan.cost, plan.forward_bytes, *saved, *backward


@dataclass(frozen=True)
class StepPlan:
    """A plan for each call of a step. Peaks in bytes, costs in seconds.

    `baseline_peak_bytes` is the step's peak with nothing recomputed. No picks from the parts'
    fronts cost less than `lower_bound`.
    """

    plans: tuple[PartPlan, ...]
    moments: tuple[Moment, ...]
    budget_bytes: int
    peak_bytes: int
    baseline_peak_bytes: int
    cost: float
    baseline_cost: float
    lower_bound: float

    @property
    def fits(self) -> bool:
        """Whether the budget holds."""
        return self.peak_bytes <= self.budget_bytes

    @property
    def extra_seconds(self) -> float:
        """Predicted time of all recomputation, a step."""
        return self.cost - self.baseline_cost


def peak_under(moments: Sequence[Moment], plans: Sequence[PartPlan]) -> int:
    """The step's peak under a plan for each call."""
    return max((moment.bytes_under(plans) for moment in moments), default=0)


def plan_calls(
    moments: Sequence[Moment],
    calls: Sequence[Front],
    budget: Budget,
    largest_step_bytes: int,
    quick: Search,
    thorough: Search,
) -> StepPlan:
    """A plan for each call, the cheapest found whose peak is within the budget at every moment.

    `calls` are the fronts of the parts that were called, in order; a part that was called twice
    comes twice. They grow. Where nothing fits the plan is that of the lowest peak found.
    """
    as_it_is = [front.baseline for front in calls]
    baseline_peak = peak_under(moments, as_it_is)
    budget_bytes = budget.to_bytes(max(baseline_peak, largest_step_bytes))
    room = [budget_bytes - moment.outside_bytes for moment in moments]
    if peak_under(moments, [front.cheapest for front in calls]) > budget_bytes:
        _grow(moments, calls, room, quick)
    found, picked = _composed(moments, calls, room)
    if _improve(moments, calls, picked, thorough):
        found, picked = _composed(moments, calls, room)
    return StepPlan(
        plans=tuple(picked),
        moments=tuple(moments),
        budget_bytes=budget_bytes,
        peak_bytes=peak_under(moments, picked),
        baseline_peak_bytes=baseline_peak,
        cost=found.cost,
        baseline_cost=sum(plan.cost for plan in as_it_is),
        lower_bound=found.lower_bound,
    )


def _composed(
    moments: Sequence[Moment], calls: Sequence[Front], room: Sequence[int]
) -> tuple[Composition, list[PartPlan]]:
    offered = _offered(calls)
    found = compose(_choices(moments, offered), room)
    return found, [plans[pick] for plans, pick in zip(offered, found.picks, strict=True)]


def _offered(calls: Sequence[Front]) -> list[list[PartPlan]]:
    """The plans that each call may have; those of a front are compared once."""
    plans = {id(front): front.plans for _, front in _distinct(calls)}
    return [plans[id(front)] for front in calls]


def _improve(
    moments: Sequence[Moment], calls: Sequence[Front], picked: Sequence[PartPlan], search: Search
) -> bool:
    """Search for plans that cost less in the memory of those that were picked; whether any did."""
    step_cost = sum(front.baseline.cost for front in calls)
    same: dict[int, list[int]] = {}
    for call, plan in enumerate(picked):
        same.setdefault(id(plan), []).append(call)
    more = False
    for where in same.values():
        front, plan = calls[where[0]], picked[where[0]]
        recomputed = len(where) * (plan.cost - front.baseline.cost)
        large = len(front.lowering.problem.ops) > TUNING.large_ops
        if large and recomputed > TUNING.worth_more * step_cost:
            alive = _alive(moments, where[0])
            saved, backward = plan.saved_bytes(alive), plan.backward_peak(alive, 0)
            more |= front.add(Limits(plan.forward_bytes, saved, backward), alive, search)
    return more


def _grow(
    moments: Sequence[Moment], calls: Sequence[Front], room: Sequence[int], search: Search
) -> None:
    """Add plans to the fronts as long as the step gains by them."""
    for index, front in _distinct(calls):
        for limits in _grid(front):
            front.add(limits, _alive(moments, index), search)
    before = float("inf")
    for _ in range(TUNING.rounds):
        choices = _choices(moments, _offered(calls))
        mixture = shares(choices, room)
        if not mixture:
            # Nothing fits yet: what each call could have beside the others at their lowest.
            lowest: Composition = compose(choices, room)
            mixture = [
                [float(k == pick) for k in range(len(part))]
                for part, pick in zip(choices, lowest.picks, strict=True)
            ]
        else:
            cost = sum(
                w * c.cost
                for part, ws in zip(choices, mixture, strict=True)
                for c, w in zip(part, ws, strict=True)
            )
            worth_it = TUNING.worth_it * sum(front.baseline.cost for front in calls)
            if before - cost < worth_it:
                return
            before = cost
        for call, limits in _wanted(moments, calls, choices, mixture, room):
            calls[call].add(limits, _alive(moments, call), search)


def _distinct(calls: Sequence[Front]) -> list[tuple[int, Front]]:
    """Each front once, with the first call that has it."""
    first: dict[int, tuple[int, Front]] = {}
    for index, front in enumerate(calls):
        first.setdefault(id(front), (index, front))
    return list(first.values())


def _grid(front: Front) -> list[Limits]:
    """Limits between what is saved at least and at most."""
    nobody = frozenset[int]()
    least, most = front.least, front.cheapest
    low, high = least.saved_bytes(nobody), most.saved_bytes(nobody)
    beyond = least.backward_peak(nobody, 0) - low
    loose = max(p.backward_peak(nobody, 0) + p.forward_bytes for p in (least, most))
    levels = [low + (high - low) * k // TUNING.saved_levels for k in range(TUNING.saved_levels + 1)]
    tight = [Limits(loose, saved, saved + beyond + beyond // 4) for saved in levels[:-1]]
    return [*tight, *(Limits(loose, saved, loose) for saved in levels[:-1])]


def _alive(moments: Sequence[Moment], call: int) -> frozenset[int]:
    """The outputs of a call that others hold from its forward to its backward."""
    held = [m.mark.waiting[call] for m in moments if call in m.mark.waiting]
    held += [m.mark.alive for m in moments if m.mark.call == call and m.mark.kind is Kind.BACKWARD]
    alive = held[0] if held else frozenset[int]()
    for each in held[1:]:
        alive &= each
    return alive


def _choices(
    moments: Sequence[Moment], offered: Sequence[Sequence[PartPlan]]
) -> list[list[Choice]]:
    running: list[list[tuple[int, Moment]]] = [[] for _ in offered]
    # By the outputs that others hold: of a plan these moments all take the same.
    waiting: list[dict[Outputs, list[int]]] = [{} for _ in offered]
    for index, moment in enumerate(moments):
        if moment.mark.call >= 0:
            running[moment.mark.call].append((index, moment))
        for call, alive in moment.mark.waiting.items():
            waiting[call].setdefault(alive, []).append(index)
    return [
        [
            Choice(plan.cost, _loads(len(moments), call, plan, running[call], waiting[call]))
            for plan in plans
        ]
        for call, plans in enumerate(offered)
    ]


def _loads(
    count: int,
    call: int,
    plan: PartPlan,
    running: Sequence[tuple[int, Moment]],
    waiting: Mapping[Outputs, Sequence[int]],
) -> np.ndarray:
    """What a call takes by a plan at each of `count` moments."""
    loads = np.zeros(count, dtype=np.int64)
    for alive, where in waiting.items():
        loads[where] = plan.saved_bytes(alive)
    for index, moment in running:
        loads[index] = moment.load(call, plan)
    return loads


def _wanted(
    moments: Sequence[Moment],
    calls: Sequence[Front],
    choices: Sequence[Sequence[Choice]],
    mixture: Sequence[Sequence[float]],
    room: Sequence[int],
) -> list[tuple[int, Limits]]:
    """What calls could have beside a mixture of the others: those that are mixed first."""
    mixed = [
        np.array(weights) @ np.array([choice.loads for choice in part])
        for part, weights in zip(choices, mixture, strict=True)
    ]
    left = np.array(room) - sum(mixed)
    order = sorted(range(len(calls)), key=lambda call: max(mixture[call]))
    asked: dict[int, int] = {}
    wanted: list[tuple[int, Limits]] = []
    for call in order:
        front = id(calls[call])
        if asked.get(front, 0) >= TUNING.wanted:
            continue
        asked[front] = asked.get(front, 0) + 1
        kinds: dict[Kind, list[int]] = {Kind.FORWARD: [], Kind.BACKWARD: [], Kind.OUTSIDE: []}
        for moment, nbytes in zip(moments, left + mixed[call], strict=True):
            if moment.mark.call == call:
                extra = moment.handed_over if moment.mark.kind is Kind.BACKWARD else 0
                kinds[moment.mark.kind].append(int(nbytes) + extra)
            elif call in moment.mark.waiting:
                kinds[Kind.OUTSIDE].append(int(nbytes))
        most = max(p.forward_bytes + p.backward_peak(frozenset(), 0) for p in calls[call].plans)
        forward, saved, backward = (
            max(0, min([most, *kinds[kind]]))
            for kind in (Kind.FORWARD, Kind.OUTSIDE, Kind.BACKWARD)
        )
        wanted.append((call, Limits(forward, saved, backward)))
    return wanted
