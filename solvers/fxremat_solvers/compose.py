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
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fxremat_solvers.model.arrays import Integers
from fxremat_solvers.programs.highs import minimise
from fxremat_solvers.programs.program import Program, Writer

_STEPS = 500
# A share of the step's cost. The blocks of a deep model are alike, and HiGHS tries picks that
# differ only in whose they are: with 48 a proof may take 2 s, within this gap a tenth of that.
_GAP = 5e-4
# HiGHS keeps rows to a millionth of its unit; picks that miss a room are asked for with less.
_OVERLOAD = 1e-3  # of the largest figure: a unit of what picks exceed room by
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
    program, _ = _cheapest(parts, room)
    mixed = replace(program, whole=np.zeros_like(program.whole))
    answer = minimise(mixed, _STEPS)
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
    """The cheapest picks within the room, and the cost of one unit of the objective."""
    cost = [choice.cost for choices in parts for choice in choices]
    unit = max([abs(c) for c in cost if c], default=1.0)
    return _written(parts, room, [c / unit for c in cost]), unit


def _lowest(parts: Sequence[Sequence[Choice]], room: Sequence[int]) -> Program:
    """The least overload: one more column lets every moment be exceeded, and is what costs."""
    most = float(math.ceil((len(parts) + 1) / _OVERLOAD))
    return _written(parts, room, None, most)


def _written(
    parts: Sequence[Sequence[Choice]],
    room: Sequence[int],
    cost: Sequence[float] | None,
    overload: float = 0.0,
) -> Program:
    """Rows: one pick a part, then the loads of each moment, as shares of the largest figure."""
    writer = Writer()
    loads = np.array([choice.loads for choices in parts for choice in choices], dtype=np.int64)
    first = np.cumsum([0, *map(len, parts)]).tolist()
    loads = loads.reshape(first[-1], len(room))
    limits = np.array(room, dtype=np.int64)
    for k in range(first[-1]):
        writer.column(cost[k] if cost else 0.0)
    for a, b in pairwise(first):
        writer.row([(k, 1.0) for k in range(a, b)], 1.0, 1.0)
    beyond = writer.column(1.0, -overload, overload) if overload else None
    # Without overload only those moments that some picks exceed.
    highest = sum(loads[a:b].max(axis=0) for a, b in pairwise(first))
    moments = range(len(room)) if overload else np.flatnonzero(highest > limits).tolist()
    largest = float(max(1, np.abs(loads).max(initial=0), np.abs(limits).max(initial=0)))
    for moment in moments:
        columns = np.flatnonzero(loads[:, moment])
        taken = (loads[columns, moment] / largest).tolist()
        entries = [*zip(columns.tolist(), taken, strict=True), (beyond, -_OVERLOAD)]
        writer.row(entries, at_most=limits[moment] / largest)
    return writer.program()


def _by_part(parts: Sequence[Sequence[Choice]], point: np.ndarray) -> list[list[float]]:
    first = np.cumsum([0, *map(len, parts)]).tolist()
    return [point[a:b].tolist() for a, b in pairwise(first)]


def _picks(parts: Sequence[Sequence[Choice]], point: np.ndarray) -> tuple[int, ...]:
    return tuple(max(range(len(x)), key=x.__getitem__) for x in _by_part(parts, point))
