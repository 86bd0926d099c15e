"""The steps that strategies are made of. Their fields are all the numbers that they take.

Work is counted in edits and in steps of branch and bound, never in seconds. So the same problem,
budget and seed give the same plan as long as the safety stop is not reached. Numbers of edits
follow the size of the graph (`Edits`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from fxremat_solvers.bounds.cost_bound import Proof, by_cuts, by_program, has_program
from fxremat_solvers.bounds.peak_bound import peak_lower_bound
from fxremat_solvers.errors import SolverError
from fxremat_solvers.model.incumbent import best, candidate
from fxremat_solvers.reference.exact import TINY_OPS, exact
from fxremat_solvers.search.greedy import greedy_candidates
from fxremat_solvers.search.local_search import (
    COLD,
    Batch,
    Recipe,
    Search,
    annealed,
    cheapest,
    descended,
)
from fxremat_solvers.search.lowest_peak import lowest_peak
from fxremat_solvers.search.parallel import side_by_side
from fxremat_solvers.search.state import State, Step
from fxremat_solvers.search.unrolled import unrolled


@dataclass(frozen=True)
class Tuning:
    """What all steps share. Shares are of the baseline's cost, sizes are numbers of ops.

    `worth`: a round that gains less is idle. `far`: a larger gap is worth restarts; on the 13 kept
    graphs most plans at half of the peak and above are nearer than that. `near`: a smaller gap is
    worth no further round, on small graphs and on others. Up to `small` ops rounds are cheap. Above
    `middle` no run from the baseline's order gets as far as one from greedy's plan. Above
    `walked` a greedy walk takes seconds. Only some tenths of a second hang on any of them.
    """

    worth: float = 5e-4
    far: float = 0.015
    near: tuple[float, float] = (1e-4, 2e-3)
    small: int = 300
    middle: int = 1_000
    walked: int = 20_000
    bounded: int = 20_000


TUNING = Tuning()
_OTHER_SEEDS = 1 << 16  # restarts and cold waves begin there: no run has the seed of a round's


@dataclass(frozen=True)
class Edits:
    """How many edits a run takes.

    `per_op` for each op up to `most`, or `large_per_op` if that is more; never above `cap`. Few
    are enough for small graphs: at most `per_square` times the square of the ops. Edits times ops
    are never above `work`, as an edit's time grows with the schedule.
    """

    per_op: int
    most: int = 1 << 40
    large_per_op: int = 0
    cap: int = 1 << 40
    per_square: float = math.inf
    work: float = math.inf

    def of(self, n_ops: int) -> int:
        """Edits on a graph of so many ops."""
        wanted = min(self.per_op * n_ops, max(self.most, self.large_per_op * n_ops), self.cap)
        fewest = min(wanted, self.per_square * n_ops**2, self.work / max(1, n_ops))
        return max(1, int(fewest))


@dataclass(frozen=True)
class BruteForce:
    """All schedules of a graph of up to ten ops."""

    name: str = "brute force"

    def __call__(self, state: State) -> State:
        if len(state.problem.ops) > TINY_OPS:
            return state
        with suppress(SolverError):  # too many values: on with the search
            solved = exact(state.problem, state.budget_bytes, time_limit_s=state.remaining_s)
            found = candidate(state.problem, solved.schedule.ops, "exact")
            return replace(state, incumbent=found).proven(Proof(solved.lower_bound))
        return state


@dataclass(frozen=True)
class PeakBound:
    """Says whether any schedule may fit at all."""

    name: str = "peak bound"

    def __call__(self, state: State) -> State:
        if len(state.problem.ops) > TUNING.bounded:
            return state
        if peak_lower_bound(state.problem) <= state.budget_bytes:
            return state
        return state.proven(Proof(math.inf))


@dataclass(frozen=True)
class Greedy:
    """Greedy's best walk, and on graphs that are not large the baseline, as starts."""

    name: str = "greedy"

    def __call__(self, state: State) -> State:
        problem, budget = state.problem, state.budget_bytes
        if len(problem.ops) > TUNING.walked:
            return replace(state, starts=(state.baseline,))
        walked = best(greedy_candidates(problem, budget), budget)
        starts = (walked,)
        if len(problem.ops) <= TUNING.middle or walked.peak_bytes > budget:
            starts = (state.baseline, walked)
        return replace(state, starts=starts).better(walked)


@dataclass(frozen=True)
class Unrolled:
    """The plan of a loop's steps, all alike, on graphs that are too large for greedy's walks."""

    name: str = "unrolled"

    def __call__(self, state: State) -> State:
        if len(state.problem.ops) <= TUNING.walked:
            return state
        found = unrolled(state.problem, state.budget_bytes)
        return replace(state, starts=(*state.starts, *found)).better(*found) if found else state


@dataclass(frozen=True)
class CutBound:
    """The bound by priced cuts, of many positions or of a third of them."""

    thorough: bool = False
    name: str = "cut bound"

    def __call__(self, state: State) -> State:
        if not state.options.prove or len(state.problem.ops) > TUNING.bounded:
            return state
        problem, until = state.problem, _half(state)
        return state.proven(
            by_cuts(problem, state.budget_bytes, thorough=self.thorough, deadline=until)
        )


@dataclass(frozen=True)
class StagedProgram:
    """An integer program over few positions: a higher bound, and schedules to start from.

    `deeper` goes on from there to more positions, where plan and bound are far apart.
    """

    deeper: bool = False

    @property
    def name(self) -> str:
        """What it is called where it reports."""
        return "deeper program" if self.deeper else "staged program"

    def __call__(self, state: State) -> State:
        if not state.options.prove or (self.deeper and not _far_apart(state)):
            return state
        until = state.deadline if self.deeper else _half(state)
        problem, budget, known = state.problem, state.budget_bytes, state.proof
        proof = by_program(problem, budget, known, deeper=self.deeper, deadline=until)
        return state if proof is known else state.proven(proof)


@dataclass(frozen=True)
class FromProgram:
    """Takes up the best schedule that the staged program led to, as a start too."""

    name: str = "program's schedule"

    def __call__(self, state: State) -> State:
        if not state.proof.schedules:
            return state
        found = [candidate(state.problem, ops, "stages") for ops in state.proof.schedules]
        led = best(found, state.budget_bytes)
        after = replace(state, starts=(*state.starts, led)).better(led)
        gain = state.incumbent.cost - after.incumbent.cost
        gained = gain >= TUNING.worth * state.problem.cost_scale
        if state.rounds > 1 and not gained and len(state.problem.ops) > TUNING.small:
            # Of eight plans that a second round lowered a third lowered one, and that was so far
            # from its bound that restarts follow anyway.
            return replace(after, idle=state.rounds)
        return replace(after, idle=0) if gained else after


def first_round(state: State) -> bool:
    """No round was yet."""
    return not state.rounds


def beside_program(state: State) -> bool:
    """The integer program runs beside it, and a further round may gain."""
    proves = state.options.prove and has_program(state.problem)
    return proves and state.fits and not _near(state)


def led_but_too_large(state: State) -> bool:
    """Nothing fits, but the integer program led to another start."""
    return not state.fits and any(start.method == "stages" for start in state.starts)


def gaining(state: State) -> bool:
    """Another round may gain, and restarts, a better use of the time, don't follow anyway."""
    return state.fits and not _near(state) and not _far_apart(state)


@dataclass(frozen=True)
class Anneal:
    """Rounds of annealing from the first starts and the best plan, while `when` holds.

    At most `most` here and `rounds` in the whole strategy, and none after one that gains little, or
    up to `TUNING.middle` ops after `patience` of them.
    A `spare` round comes on top where there is an integer program, for one goes on beside it.
    Graphs without a backward part get one round, of `free_order` edits: nothing says which order
    is a good one.
    """

    edits: Edits
    free_order: Edits
    rounds: int
    most: int = 1 << 10
    when: Callable[[State], bool] = gaining
    patience: int = 1
    spare: bool = False
    name: str = "anneal"

    def __call__(self, state: State) -> State:
        turns = self._turns(state)
        patience = self.patience if len(state.problem.ops) <= TUNING.middle else 1
        last = min(len(turns), state.rounds + self.most)
        while (
            state.rounds < last
            and state.idle < patience
            and state.remaining_s > 0
            and self.when(state)
        ):
            state = self._round(state, turns)
        return state

    def _turns(self, state: State) -> tuple[int, ...]:
        """What each round's seed is made of: a spare one has the last, the others keep theirs."""
        if _is_free(state):
            return (0,)
        spare = (self.rounds,) if self.spare and has_program(state.problem) else ()
        return (*spare, *range(self.rounds))

    def _round(self, state: State, turns: tuple[int, ...]) -> State:
        turn, problem, n_ops = turns[state.rounds], state.problem, len(state.problem.ops)
        free = _is_free(state)
        runs = 4 if n_ops <= TUNING.middle and not free else 2
        starts = state.starts
        if state.rounds and state.fits:
            rest = (s for s in starts[2:] if s.method == "stages" and s is not state.incumbent)
            starts = (*starts[:2], state.incumbent, *rest)
        found = cheapest(
            _search(state),
            starts,
            state.budget_bytes,
            edits=(self.free_order if free else self.edits).of(n_ops),
            runs=runs,
            seed=state.options.seed * len(turns) + turn,
            # Where a round is too short for all recipes the third has the others.
            recipe=runs if turn == 2 else 0,
        )
        after = state.better(found)
        gain = state.incumbent.cost - after.incumbent.cost
        gained = not state.fits or gain >= TUNING.worth * problem.cost_scale
        return replace(after, rounds=state.rounds + 1, idle=0 if gained else state.idle + 1)


@dataclass(frozen=True)
class LowestPeak:
    """Where nothing fits yet: the plan of the lowest peak, as a start."""

    name: str = "lowest peak"

    def __call__(self, state: State) -> State:
        if state.fits:
            return state
        # With time of its own, for a search that is cut off depends on more than sizes.
        until = time.monotonic() + state.options.time_limit_s
        found = state.lowest or lowest_peak(state.problem, deadline=until)
        return replace(state, starts=(*state.starts, found), lowest=found).better(found)


@dataclass(frozen=True)
class Restarts:
    """Independent runs by recipes of one kind, where plan and bound are far apart.

    They start from the best plan and all starts, or with `from_starts` from those alone. They are
    meant for graphs of more than `above` and up to `below` ops.
    """

    recipes: tuple[Recipe, ...]
    runs: int
    edits: Edits
    seed: int = 1
    from_starts: bool = False
    above: int = 0
    below: int = 1 << 40
    name: str = "restarts"

    def wanted(self, state: State) -> bool:
        """Whether it is of use on this graph."""
        return self.above < len(state.problem.ops) <= self.below

    def batch(self, state: State) -> Batch:
        """Its runs."""
        starts = state.starts if self.from_starts else (state.incumbent, *state.starts)
        edits = self.edits.of(len(state.problem.ops))
        seed = self.seed * (state.options.seed + _OTHER_SEEDS)
        return Batch(starts, self.recipes, edits, self.runs, seed)


@dataclass(frozen=True)
class Restarted:
    """Restarts of several kinds, all side by side."""

    batches: tuple[Restarts, ...]
    name: str = "restarts"

    def __call__(self, state: State) -> State:
        batches = [each.batch(state) for each in self.batches if each.wanted(state)]
        if not batches or not _far_apart(state):
            return state
        found = annealed(_search(state), state.budget_bytes, *batches)
        return replace(state, restarted=True).better(*found)


@dataclass(frozen=True)
class ColdWaves:
    """After restarts: waves of four cold runs, each wave from the best plan yet."""

    waves: int
    edits: Edits
    recipes: tuple[Recipe, ...] = COLD
    above: int = 0
    below: int = 1 << 40
    name: str = "cold waves"

    def __call__(self, state: State) -> State:
        n_ops = len(state.problem.ops)
        if not state.restarted or not self.above < n_ops <= self.below:
            return state
        found = descended(
            _search(state),
            state.incumbent,
            state.budget_bytes,
            self.recipes,
            edits=self.edits.of(n_ops),
            waves=self.waves,
            seed=state.options.seed + _OTHER_SEEDS,
        )
        return state.better(found)


@dataclass(frozen=True)
class Afresh:
    """Another search from the beginning: the plan so far is kept aside, and the better one counts.

    A search that went on from that plan would end near it.
    """

    name: str = "afresh"

    def __call__(self, state: State) -> State:
        plain = state.baseline
        begun = replace(state, aside=state.plan, incumbent=plain, starts=(plain,), rounds=0)
        return replace(begun, idle=0, restarted=False)


@dataclass(frozen=True)
class Together:
    """Steps for the bound beside steps for the plan: the one takes a processor, the other all.

    What the plan's steps are told of the bound is what was known before both.
    """

    bound: tuple[Step, ...]
    plan: tuple[Step, ...]

    @property
    def name(self) -> str:
        """The names of both sides."""
        sides = (", ".join(step.name for step in side) for side in (self.bound, self.plan))
        return " | ".join(sides)

    def __call__(self, state: State) -> State:
        sides = (partial(_in_turn, side, state) for side in (self.bound, self.plan))
        proven, planned = side_by_side([*sides], threads=2)
        if proven is state and planned is state:
            return state
        return planned.proven(proven.proof).better(proven.incumbent)


def _in_turn(steps: Sequence[Callable[[State], State]], state: State) -> State:
    for step in steps:
        state = step(state)
    return state


def _search(state: State) -> Search:
    return Search(state.problem, state.deadline)


def _half(state: State) -> float:
    """The stop for the bound: the plan gets at least half of the time."""
    return state.deadline - state.remaining_s / 2


def _is_free(state: State) -> bool:
    """A large graph whose order may be any: no backward part says which is a good one."""
    return state.problem.first_backward_op is None and len(state.problem.ops) > TUNING.small


def _near(state: State) -> bool:
    """Whether the plan is so near the bound that a further round isn't worth it."""
    small, other = TUNING.near
    return state.fits and state.gap <= (small if len(state.problem.ops) <= TUNING.small else other)


def _far_apart(state: State) -> bool:
    """Whether plan and bound are, on a training graph, where more work has been seen to pay."""
    return (
        state.options.prove
        and state.remaining_s > 0
        and state.problem.first_backward_op is not None
        and state.fits
        and len(state.problem.ops) <= TUNING.bounded
        and state.gap > TUNING.far
    )
