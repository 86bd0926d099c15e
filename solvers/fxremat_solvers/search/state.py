"""What a strategy works on: one state, which every step replaces by a better one."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Protocol

from fxremat_solvers.bounds.cost_bound import Proof
from fxremat_solvers.model.incumbent import Candidate, best, same_cost
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.options import SolveOptions

NO_PROOF = Proof(0.0)


@dataclass(frozen=True)
class State:
    """A search so far.

    `starts` are the plans to search from beside `incumbent`, the best plan. `rounds` counts rounds
    of annealing, `idle` those at the end that gained little. `lowest` is the plan of the lowest
    peak, where it was searched for. `aside` is the plan of a search before this one.
    """

    problem: RematProblem
    budget_bytes: int
    options: SolveOptions
    deadline: float
    baseline: Candidate
    incumbent: Candidate
    starts: tuple[Candidate, ...]
    proof: Proof = NO_PROOF
    rounds: int = 0
    idle: int = 0
    restarted: bool = False
    lowest: Candidate | None = None
    aside: Candidate | None = None

    @property
    def plan(self) -> Candidate:
        """The best plan of this search and the one before."""
        found = [self.incumbent] if self.aside is None else [self.aside, self.incumbent]
        return best(found, self.budget_bytes)

    @property
    def fits(self) -> bool:
        """Whether the best plan is within the budget."""
        return self.incumbent.peak_bytes <= self.budget_bytes

    @property
    def gap(self) -> float:
        """What the best plan costs above the bound, as a share of the baseline's cost."""
        scale = self.problem.cost_scale
        return (self.incumbent.cost - self.proof.bound) / scale if scale > 0 else 0.0

    @property
    def settled(self) -> bool:
        """Whether no step can do better: the plan is optimal, or nothing fits."""
        nothing_fits = self.proof.bound == float("inf")
        near = self.plan.cost - self.proof.bound <= same_cost(self.problem)
        return nothing_fits or (self.plan.peak_bytes <= self.budget_bytes and near)

    @property
    def remaining_s(self) -> float:
        """Seconds left before the safety stop."""
        return max(0.0, self.deadline - time.monotonic())

    def better(self, *found: Candidate) -> State:
        """With the best of these and of the best plan."""
        return replace(self, incumbent=best([self.incumbent, *found], self.budget_bytes))

    def proven(self, proof: Proof) -> State:
        """With this proof and what it led to; the bound is the better one of it and before."""
        return replace(self, proof=replace(proof, bound=max(proof.bound, self.proof.bound)))


class Step(Protocol):
    """A part of a strategy. One that has nothing to do returns the state that it was given."""

    @property
    def name(self) -> str:
        """What it is called where it reports."""
        ...

    def __call__(self, state: State) -> State: ...


@dataclass(frozen=True)
class Report:
    """What a step did: seconds, and the best plan and the bound before and after it."""

    step: str
    seconds: float
    cost: tuple[float, float]
    peak_bytes: tuple[int, int]
    bound: tuple[float, float]


def follow(strategy: tuple[Step, ...], state: State) -> tuple[State, tuple[Report, ...]]:
    """The state after the steps, until one settles it, and what each of them did."""
    reports: list[Report] = []
    for step in strategy:
        if state.settled:
            break
        began = time.monotonic()
        after = step(state)
        seconds, old, new = time.monotonic() - began, state.plan, after.plan
        cost, peak = (old.cost, new.cost), (old.peak_bytes, new.peak_bytes)
        if after is not state:
            bounds = state.proof.bound, after.proof.bound
            reports.append(Report(step.name, seconds, cost, peak, bounds))
        state = after
    return state, tuple(reports)
