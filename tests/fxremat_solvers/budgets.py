"""Budgets for tests: shares of the baseline's peak, or of the way there from the least peak."""

from __future__ import annotations

from fxremat_solvers import RematProblem, baseline, simulate
from fxremat_solvers.reference.exact import exact


def peak_of(problem: RematProblem) -> int:
    """The baseline's peak."""
    return simulate(problem, baseline(problem)).peak_bytes


def share_of_peak(problem: RematProblem, share: float) -> int:
    """A share of the baseline's peak, one byte at least."""
    return max(1, int(share * peak_of(problem)))


def budget_between(problem: RematProblem, share: float) -> int:
    """From the least peak (0) to the baseline's (1); for graphs that brute force can do."""
    least = exact(problem, -1).peak_bytes
    return least + int(share * (peak_of(problem) - least))
