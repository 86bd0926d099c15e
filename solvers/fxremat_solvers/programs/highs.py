"""Programs by HiGHS, cut off by a count of its own steps, never by the clock.

HiGHS is asked directly: the one within SciPy writes to the standard output in some releases, and
neither SciPy nor PuLP passes on the point at which HiGHS asks whether to go on. It asks at fixed
points of its work, so counting the questions makes an answer repeatable. The time limit is a
safety stop behind them.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fxremat_solvers.errors import SolverError
from fxremat_solvers.programs.program import Answer, Program

SAFETY_STOP_S = 60.0

_RENS_COLUMNS = 2_000
"""Of larger programs RENS (Berthold 2014) takes longer than its points are worth."""


def minimise(
    program: Program,
    steps: int,
    time_limit_s: float = SAFETY_STOP_S,
    *,
    gap: float = 1e-7,
    start: Mapping[int, float] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Answer:
    """Branch and bound until HiGHS has asked `steps` times whether to go on.

    It ends sooner where point and bound are within `gap` of each other, a share of the objective.
    `start` are columns of a point to begin from. Where nothing must be whole the bound is the
    objective.
    """
    highspy: Any = importlib.import_module("highspy")
    solver = highspy.Highs()
    for name, value in {
        "output_flag": False,
        "parallel": "off",
        "mip_rel_gap": gap,
        # Sub-programs around the best point and the relaxed one, for better points: local search
        # is there for that. Without the former the programs of 12 layers of GPT-2 take a sixth to
        # a third less time for bounds at most 0.02 per cent lower. Without the latter up to a third
        # less again, for bounds as near, but smaller graphs would lose their proofs.
        "mip_heuristic_run_rins": False,
        "mip_heuristic_run_rens": len(program.cost) <= _RENS_COLUMNS,
        "time_limit": time_limit_s,
        **(options or {}),
    }.items():
        if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise SolverError(f"HiGHS {solver.version()} has no {name}: install highspy 1.11")
    solver.passModel(_model(highspy, program))
    if start:
        columns = np.array(list(start), dtype=np.int32)
        solver.setSolution(len(start), columns, np.array(list(start.values())))
    asked = 0

    def count(event: Any) -> None:
        nonlocal asked
        asked += 1
        if asked >= steps:
            event.data_in.user_interrupt = True

    solver.cbMipInterrupt.subscribe(count)
    solver.run()
    status, ends, found = solver.getModelStatus(), highspy.HighsModelStatus, solver.getSolution()
    information, whole = solver.getInfo(), bool(program.whole.any())
    bound = float(information.mip_dual_bound if whole else information.objective_function_value)
    solved = found.value_valid and (whole or status == ends.kOptimal)
    return Answer(
        bound=bound if math.isfinite(bound) else -math.inf,
        point=np.array(found.col_value) if solved else None,
        steps=asked,
        optimal=solved and status == ends.kOptimal,
        infeasible=status == ends.kInfeasible,
    )


def _model(highspy: Any, program: Program) -> Any:
    model = highspy.HighsLp()
    model.num_row_, model.num_col_ = len(program.at_least), len(program.cost)
    model.col_cost_ = program.cost
    model.col_lower_, model.col_upper_ = program.low, program.high
    model.row_lower_, model.row_upper_ = program.at_least, program.at_most
    kind = highspy.HighsVarType
    if program.whole.any():
        model.integrality_ = [kind.kInteger if w else kind.kContinuous for w in program.whole]
    entries = model.a_matrix_
    entries.format_ = highspy.MatrixFormat.kRowwise
    entries.start_, entries.index_, entries.value_ = program.start, program.column, program.entry
    return model
