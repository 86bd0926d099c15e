"""The same programs by PuLP's solvers: CBC, to hold the answers of HiGHS against."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pulp as _pulp  # pyright: ignore[reportMissingTypeStubs]

from fxremat_solvers.errors import SolverError
from fxremat_solvers.programs.program import Answer, Program

# PuLP is only partly typed.
pulp: Any = _pulp


def minimise(program: Program, time_limit_s: float, *, gap: float = 1e-7, seed: int = 0) -> Answer:
    """Solve a program by CBC. Its bound is known only where it is solved to the end."""
    with warnings.catch_warnings():
        # PuLP 4 deprecates some of what PuLP 3 needs; both still take it.
        warnings.simplefilter("ignore")
        solver = _cbc(time_limit_s, gap, seed)
        lp, columns = _written(program)
        try:
            lp.solve(solver)
        except pulp.PulpSolverError as error:
            raise SolverError(f"CBC failed: {error}") from error
        values = [column.value() for column in columns]
    # `sol_status`, not `status`: that says Optimal after a time-out too.
    optimal = lp.sol_status == pulp.LpSolutionOptimal
    solved = optimal or lp.sol_status == pulp.LpSolutionIntegerFeasible
    return Answer(
        bound=float(pulp.value(lp.objective) or 0.0) if optimal else -math.inf,
        # Columns that no row and no cost names have no value.
        point=np.array([value or 0.0 for value in values]) if solved else None,
        steps=0,
        optimal=optimal,
        infeasible=lp.sol_status == pulp.LpSolutionInfeasible,
    )


def has_cbc() -> bool:
    """Whether there is a CBC: PuLP 3 brings one along."""
    return bool(_names())


def _names() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        available: list[str] = pulp.listSolvers(onlyAvailable=True)
    return [name for name in ("PULP_CBC_CMD", "COIN_CMD") if name in available]


def _cbc(time_limit_s: float, gap: float, seed: int) -> Any:
    names = _names()
    if not names:
        raise SolverError("PuLP finds no CBC: install cbc, or use HiGHS")
    options = [f"randomSeed {seed}", f"randomCbcSeed {seed}"]
    limits = {"timeLimit": time_limit_s, "gapRel": gap, "threads": 1}
    return pulp.getSolver(names[0], msg=False, options=options, **limits)


def _written(program: Program) -> tuple[Any, list[Any]]:
    lp: Any = pulp.LpProblem("program", pulp.LpMinimize)
    # PuLP 4's own; PuLP 3 has none.
    variable: Any = getattr(lp, "add_variable", pulp.LpVariable)
    columns: list[Any] = [
        variable(
            f"c{k}",
            None if math.isinf(low) else low,
            None if math.isinf(high) else high,
            pulp.LpInteger if whole else pulp.LpContinuous,
        )
        for k, (low, high, whole) in enumerate(
            zip(program.low, program.high, program.whole.tolist(), strict=True)
        )
    ]
    lp += pulp.lpSum(c * columns[k] for k, c in enumerate(program.cost.tolist()) if c)
    for (first, last), low, high in zip(
        pairwise(program.start.tolist()), program.at_least, program.at_most, strict=True
    ):
        entries = zip(program.entry[first:last], program.column[first:last], strict=True)
        body: Any = pulp.lpSum(float(entry) * columns[k] for entry, k in entries)
        if low == high:
            lp += body == float(low)
            continue
        if low > -math.inf:
            lp += body >= float(low)
        if high < math.inf:
            lp += body <= float(high)
    return lp, columns
