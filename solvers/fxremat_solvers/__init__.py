"""Rematerialization solvers: the cheapest schedule of a graph under a memory budget.

Knows nothing of torch. Give it a `RematProblem` (ops with costs, values with bytes) and a budget:

    solution = solve(problem, budget_bytes=2**30)
"""

from fxremat_solvers.errors import (
    ArgumentError,
    BudgetError,
    ProblemFormatError,
    ScheduleError,
    SeveralRerunsError,
    SolverError,
    UnknownSolverError,
)
from fxremat_solvers.model.graphs import structure_hash, to_networkx
from fxremat_solvers.model.problem import Op, RematProblem, Rerun, Value, plain_op
from fxremat_solvers.model.schedule import Schedule, Solution, Status
from fxremat_solvers.model.simulate import (
    Simulation,
    baseline,
    check,
    live_after,
    live_at,
    simulate,
)
from fxremat_solvers.options import SolveOptions
from fxremat_solvers.pareto import pareto
from fxremat_solvers.portfolio import PRESETS
from fxremat_solvers.search.lowest_peak import floor
from fxremat_solvers.search.quick import quick
from fxremat_solvers.solve import SOLVERS, Solver, solve
from fxremat_solvers.version import __version__

__all__ = [
    "PRESETS",
    "SOLVERS",
    "ArgumentError",
    "BudgetError",
    "Op",
    "ProblemFormatError",
    "RematProblem",
    "Rerun",
    "Schedule",
    "ScheduleError",
    "SeveralRerunsError",
    "Simulation",
    "Solution",
    "SolveOptions",
    "Solver",
    "SolverError",
    "Status",
    "UnknownSolverError",
    "Value",
    "__version__",
    "baseline",
    "check",
    "floor",
    "live_after",
    "live_at",
    "pareto",
    "plain_op",
    "quick",
    "simulate",
    "solve",
    "structure_hash",
    "to_networkx",
]
