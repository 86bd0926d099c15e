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
    """Writes a program. The cost of a column may still be set in `cost` after it is made."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self._low: list[float] = []
        self._high: list[float] = []
        self._whole: list[bool] = []
        self._start = [0]
        self._column: list[int] = []
        self._entry: list[float] = []
        self._at_least: list[float] = []
        self._at_most: list[float] = []

    def column(
        self, cost: float = 0.0, low: float = 0.0, high: float = 1.0, *, whole: bool = True
    ) -> int:
        """One more unknown: its number."""
        self.cost.append(cost)
        self._low.append(low)
        self._high.append(high)
        self._whole.append(whole)
        return len(self.cost) - 1

    def row(
        self,
        entries: Iterable[tuple[int | None, float]],
        at_least: float = -math.inf,
        at_most: float = math.inf,
    ) -> None:
        """One more row; entries without a column are left out."""
        for column, entry in entries:
            if column is not None:
                self._column.append(column)
                self._entry.append(entry)
        self._start.append(len(self._column))
        self._at_least.append(at_least)
        self._at_most.append(at_most)

    def program(self) -> Program:
        """What has been written."""
        return Program(
            cost=np.array(self.cost, dtype=np.float64),
            low=np.array(self._low, dtype=np.float64),
            high=np.array(self._high, dtype=np.float64),
            whole=np.array(self._whole, dtype=np.bool_),
            start=np.array(self._start, dtype=np.int64),
            column=np.array(self._column, dtype=np.int64),
            entry=np.array(self._entry, dtype=np.float64),
            at_least=np.array(self._at_least, dtype=np.float64),
            at_most=np.array(self._at_most, dtype=np.float64),
        )
