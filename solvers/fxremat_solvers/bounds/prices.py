"""Prices of a byte at each position, by cutting planes within a trust region."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fxremat_solvers.bounds.relaxation import Relaxation, evaluate
from fxremat_solvers.model.arrays import Floats

_UNITS = 1.5e9
"""The integer cost of the whole baseline: cuts are rounded down to this resolution."""


def maximise(
    relaxation: Relaxation,
    budget_bytes: int,
    scale: float,
    start: Floats,
    evaluations: int,
    known: float,
) -> tuple[float, Floats]:
    """The best dual value found and its prices, by cutting planes within a trust region.

    `scale` is a natural price (baseline cost over budget); gives up once the cutting-plane model
    proves that `known` can't be beaten by more than 1e-5 of the baseline.
    """
    k = len(relaxation.chain)
    tolerance = 1e-5 * scale * budget_bytes
    unit = scale * budget_bytes / _UNITS
    center = start / scale
    cuts: list[tuple[float, Floats]] = []
    best, best_point = -math.inf, center
    radius = 4.0 if k == 1 else 0.1
    highest = top_of_lines if k == 1 else top_of_planes
    for turn in range(evaluations):
        if turn == 0:
            point, predicted = center, math.inf
        else:
            low, high = np.maximum(center - radius, 0.0), center + radius
            point, predicted = highest(cuts, low, high)
        if predicted <= best + tolerance or (radius >= 1.0 and predicted <= known + tolerance):
            break
        value, slope = evaluate(relaxation, point * scale, budget_bytes, unit)
        cuts.append((value - float(slope * scale @ point), slope * scale))
        if value > best:
            radius *= 1.5 if value > best + 0.1 * (predicted - best) else 0.7
            best, best_point, center = value, point, point
        else:
            radius *= 0.7
        if k == 1:
            radius = 4.0
    return best, best_point * scale


def top_of_planes(
    cuts: Sequence[tuple[float, Floats]], low: Floats, high: Floats
) -> tuple[Floats, float]:
    """Where the least of some planes is highest between `low` and `high`, and how high.

    A plane: its value at zero and its slopes. Where that can't be told the height is -inf.
    """
    # Imported here: it takes longer than most problems, which never come here, take to solve.
    optimize: Any = importlib.import_module("scipy.optimize")
    result = optimize.linprog(
        np.array([0.0] * len(low) + [-1.0]),
        A_ub=np.array([[*(-slope), 1.0] for _, slope in cuts]),
        b_ub=np.array([value for value, _ in cuts]),
        bounds=[*zip(low, high, strict=True), (None, None)],
        method="highs",
    )
    if result.x is None:
        return low, -math.inf
    return result.x[:-1], float(result.x[-1])


def top_of_lines(
    cuts: Sequence[tuple[float, Floats]], low: Floats, high: Floats
) -> tuple[Floats, float]:
    """`top_of_planes` for one slope each, without what a linear program costs."""
    value = np.array([value for value, _ in cuts])
    slope = np.array([slopes[0] for _, slopes in cuts])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # parallel, or nearly so
        meet = (value - value[:, None]) / (slope[:, None] - slope)
    points = np.concatenate((low, high, meet[(meet > low) & (meet < high)]))
    least = (value + slope * points[:, None]).min(axis=1)
    top = int(least.argmax())
    return points[[top]], float(least[top])
