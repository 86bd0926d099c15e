"""One plan for each part of a step, so that all of them together fit at every moment.

A step of several graphs is planned in two stages: each graph has a front of plans, and here one is
picked from each. A plan takes bytes at some moments (while it runs; between its forward and its
backward) and costs time. The cheapest picks that fit are a multiple-choice knapsack with one row a
moment, an integer program for HiGHS, which gives its bound as well.

Limits: the bound is one over the plans that are offered, not over all schedules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fxremat_solvers.bounds.integer_program import Program, minimise
from fxremat_solvers.model.arrays import Integers

_STEPS = 500
# A share of the step's cost. The blocks of a deep model are alike, and HiGHS tries picks that
# differ only in whose they are: with 48 a proof may take 2 s, within this gap a tenth of that.
_GAP = 5e-4
# HiGHS keeps rows to a millionth of its unit; picks that miss a room are asked for with less.
_MARGINS = (0.0, 2e-6, 1e-4, 1e-2)


@dataclass(frozen=True, eq=False)
class Choice:
    """A plan that can be picked: what it costs, and the bytes that it takes at each moment."""

    cost: float
    loads: Integers


@dataclass(frozen=True)
class Composition:
    """Which choice each part gets, by index.

    `cost` is their sum and `lower_bound` what any picks that fit cost at least (inf where HiGHS
    finds that none do). `fits` says whether these do. `overload_bytes` is the most by which they
    exceed a moment's room, negative where all leave some.
    """

    picks: tuple[int, ...]
    cost: float
    lower_bound: float
    fits: bool
    overload_bytes: int


def compose(parts: Sequence[Sequence[Choice]], room: Sequence[int]) -> Composition:
    """The cheapest picks whose loads are within `room` at every moment.

    Where there are none: the picks with the smallest overload. Every part has a choice or more.
    """
    bound = 0.0
    for margin in _MARGINS:
        least = [math.floor(bytes_ - margin * abs(bytes_)) for bytes_ in room]
        program, unit = _cheapest(parts, least)
        answer = minimise(program, _STEPS, gap=_GAP)
        if answer.point is None:
            break
        bound = answer.bound * unit if margin == 0.0 else bound
        picks = _picks(parts, answer.point)
        found = _composition(parts, room, picks, bound)
        if found.fits:
            return found
    answer = minimise(_lowest(parts, room), _STEPS)
    assert answer.point is not None
    return _composition(parts, room, _picks(parts, answer.point), math.inf)


def shares(parts: Sequence[Sequence[Choice]], room: Sequence[int]) -> list[list[float]]:
    """How much of each choice the cheapest mixture has that fits; empty where none does.

    Where it mixes two choices of a part, one between them is wanted.
    """
    answer = minimise(_cheapest(parts, room)[0], _STEPS, whole=False)
    return [] if answer.point is None else _by_part(parts, answer.point)


def _composition(
    parts: Sequence[Sequence[Choice]], room: Sequence[int], picks: tuple[int, ...], bound: float
) -> Composition:
    picked = [choices[pick] for choices, pick in zip(parts, picks, strict=True)]
    left = np.array(room, dtype=np.int64)
    for choice in picked:
        left -= choice.loads
    overload = -int(left.min()) if room else 0
    cost = math.fsum(choice.cost for choice in picked)
    return Composition(picks, cost, min(bound, cost), overload <= 0, overload)


def _cheapest(parts: Sequence[Sequence[Choice]], room: Sequence[int]) -> tuple[Program, float]:
    cost = [choice.cost for choices in parts for choice in choices]
    return _program(parts, room, cost, None)


def _lowest(parts: Sequence[Sequence[Choice]], room: Sequence[int]) -> Program:
    """The least overload: one more column, in thousandths of the largest figure."""
    free = [0.0 for choices in parts for _ in choices]
    return _program(parts, room, free, 1e-3)[0]


def _program(
    parts: Sequence[Sequence[Choice]],
    room: Sequence[int],
    cost: list[float],
    overload_unit: float | None,
) -> tuple[Program, float]:
    """The program, and the cost of one unit of its objective.

    Rows: one pick a part (as two inequalities), then the loads of each moment, scaled.

    With `overload_unit` a last column lets every moment be exceeded, by units of that share of the
    largest figure, and is what costs.
    """
    columns = len(cost)
    first = np.cumsum([0, *map(len, parts)])
    loads = np.array([choice.loads for choices in parts for choice in choices], dtype=np.int64)
    loads = loads.reshape(columns, len(room))
    limits = np.array(room, dtype=np.int64)
    kept = np.arange(len(room))
    if overload_unit is None:
        # Only those moments that some picks exceed.
        most = sum(loads[a:b].max(axis=0) for a, b in pairwise(first))
        kept = np.flatnonzero(most > limits)
    largest = float(max(1, np.abs(loads).max(initial=0), np.abs(limits).max(initial=0)))
    moment, column = np.nonzero(loads[:, kept].T)
    entry = loads[column, kept[moment]] / -largest
    low, high = np.zeros(columns), np.ones(columns)
    scale = max([abs(c) for c in cost if c], default=1.0)
    objective = np.array(cost) / scale
    if overload_unit is not None:
        most = float(math.ceil((len(parts) + 1) / overload_unit))
        low, high = np.append(low, -most), np.append(high, most)
        objective = np.append(objective, 1.0)
        moment = np.append(moment, kept)
        column = np.append(column, np.full(len(kept), columns))
        entry = np.append(entry, np.full(len(kept), overload_unit))
    part = np.repeat(np.arange(len(parts)), np.diff(first))
    row = np.concatenate([2 * part, 2 * part + 1, 2 * len(parts) + moment])
    order = np.argsort(row, kind="stable")
    column = np.concatenate([np.tile(np.arange(columns), 2), column])
    entry = np.concatenate([np.ones(columns), -np.ones(columns), entry])
    program = Program(
        cost=objective,
        low=low,
        high=high,
        start=np.searchsorted(row[order], np.arange(2 * len(parts) + len(kept) + 1)),
        column=column[order],
        entry=entry[order],
        at_least=np.concatenate([np.tile([1.0, -1.0], len(parts)), limits[kept] / -largest]),
    )
    return program, scale


def _by_part(parts: Sequence[Sequence[Choice]], point: np.ndarray) -> list[list[float]]:
    found: list[list[float]] = []
    first = 0
    for choices in parts:
        found.append([float(x) for x in point[first : first + len(choices)]])
        first += len(choices)
    return found


def _picks(parts: Sequence[Sequence[Choice]], point: np.ndarray) -> tuple[int, ...]:
    return tuple(max(range(len(x)), key=x.__getitem__) for x in _by_part(parts, point))
