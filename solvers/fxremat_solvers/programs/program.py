"""A program, and the one writer of it: column by column and row by row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fxremat_solvers.model.arrays import Floats, Integers


@dataclass(frozen=True)
class Program:
    """Minimise `cost` x where `low` <= x <= `high` and `at_least` <= matrix x <= `at_most`.

    Those of x that are `whole` are whole numbers. The matrix by rows: those of row r are `column`
    and `entry` from `start[r]` to `start[r + 1]`.
    """

    cost: Floats
    low: Floats
    high: Floats
    whole: NDArray[np.bool_]
    start: Integers
    column: Integers
    entry: Floats
    at_least: Floats
    at_most: Floats


@dataclass(frozen=True)
class Answer:
    """What the objective is at least (-inf: unknown), the best point found, and steps taken.

    `optimal`: the point is proven to be the best. `infeasible`: there is none.
    """

    bound: float
    point: Floats | None
    steps: int
    optimal: bool
    infeasible: bool


class Writer:
    """Writes a program."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self._bounds: list[tuple[float, float]] = []
        self._whole: list[bool] = []
        self._start = [0]
        self._entries: list[tuple[int, float]] = []
        self._limits: list[tuple[float, float]] = []

    def column(
        self, cost: float = 0.0, low: float = 0.0, high: float = 1.0, *, whole: bool = True
    ) -> int:
        """One more unknown: its number."""
        self.cost.append(cost)
        self._bounds.append((low, high))
        self._whole.append(whole)
        return len(self.cost) - 1

    def row(
        self,
        entries: Iterable[tuple[int | None, float]],
        at_least: float = -math.inf,
        at_most: float = math.inf,
    ) -> None:
        """One more row; entries without a column are left out."""
        self._entries += ((column, entry) for column, entry in entries if column is not None)
        self._start.append(len(self._entries))
        self._limits.append((at_least, at_most))

    def program(self) -> Program:
        """What has been written."""
        low, high = np.array(self._bounds, dtype=np.float64).reshape(-1, 2).T
        at_least, at_most = np.array(self._limits, dtype=np.float64).reshape(-1, 2).T
        column, entry = np.array(self._entries, dtype=np.float64).reshape(-1, 2).T
        start = np.array(self._start, dtype=np.int64)
        cost, whole = np.array(self.cost, dtype=np.float64), np.array(self._whole, dtype=np.bool_)
        return Program(
            cost, low, high, whole, start, column.astype(np.int64), entry, at_least, at_most
        )
