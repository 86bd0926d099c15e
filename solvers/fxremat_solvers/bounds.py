"""Lower bounds."""

from fxremat_solvers.problem import RematProblem


def lower_bound(problem: RematProblem, budget_bytes: int) -> float:
    """A lower bound on the cost of any schedule within the budget."""
    return problem.baseline_cost
