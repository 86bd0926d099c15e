"""What a strategy knows only grows: of two plans and of two bounds the better one stays."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fxremat_solvers import SolveOptions, baseline
from fxremat_solvers.bounds.cost_bound import Proof
from fxremat_solvers.model.incumbent import candidate
from fxremat_solvers.search.state import State
from fxremat_solvers.search.steps import Together
from fxremat_solvers.testing import chain


def start() -> State:
    problem = chain(4)
    plain = candidate(problem, baseline(problem).ops, "baseline")
    later = time.monotonic() + 60.0
    return State(problem, 3, SolveOptions(), later, plain, plain, (plain,))


@dataclass(frozen=True)
class Proves:
    """A step that comes to a bound."""

    bound: float
    name: str = "proves"

    def __call__(self, state: State) -> State:
        return state.proven(Proof(self.bound, positions=(int(self.bound),)))


def test_a_proof_never_lowers_the_bound():
    state = start().proven(Proof(5.0)).proven(Proof(3.0, positions=(3,)))
    assert state.proof == Proof(5.0, positions=(3,)), "the newer proof, the higher bound"


def test_of_two_sides_the_better_bound_counts():
    assert Together((Proves(7.0),), (Proves(5.0),))(start()).proof.bound == 7.0
    assert Together((Proves(5.0),), (Proves(7.0),))(start()).proof.bound == 7.0
