"""What commands read and print: documents in files, figures of solutions and replays as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from fxremat_solvers.errors import ProblemFormatError
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Schedule, Solution
from fxremat_solvers.model.simulate import Simulation

_Document = TypeVar("_Document", RematProblem, Schedule)


def read_document(path: Path, kind: type[_Document]) -> _Document:
    """The problem, or the schedule, in a file. A `ProblemFormatError` names the file too."""
    try:
        return kind.from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ProblemFormatError(f"{path}: not UTF-8 text: {error}") from error
    except ProblemFormatError as error:
        raise ProblemFormatError(f"{path}: {error}") from error


def solution_figures(problem: RematProblem, solution: Solution) -> dict[str, object]:
    """A solution's figures; a bound of infinity (no schedule exists) is null, as JSON has none."""
    bound = solution.lower_bound
    return {
        "cost": solution.cost,
        "baseline_cost": problem.baseline_cost,
        "peak_bytes": solution.peak_bytes,
        "lower_bound": bound if math.isfinite(bound) else None,
        "status": solution.status.value,
        "solver": solution.solver,
        "recomputed_ops": len(solution.schedule) - len(problem.ops),
    }


def front_figures(problem: RematProblem, front: Sequence[Solution]) -> dict[str, object]:
    """The figures of a front."""
    points = [solution_figures(problem, solution) for solution in front]
    return {"baseline_cost": problem.baseline_cost, "points": points}


def replay_figures(problem: RematProblem, replay: Simulation) -> dict[str, object]:
    """The figures of a schedule's replay."""
    return {
        "cost": replay.cost,
        "baseline_cost": problem.baseline_cost,
        "peak_bytes": replay.peak_bytes,
        "peak_step": replay.peak_step,
        "recomputed_ops": len(replay.runs) - len(problem.ops),
    }
