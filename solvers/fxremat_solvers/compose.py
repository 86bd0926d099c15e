"""One plan for each part of a step, so that all of them together fit at every moment.

A step of several graphs is planned in two stages: each graph has a front of plans, and here one is
picked from each. A plan takes bytes at some moments (while it runs; between its forward and its
backward) and costs time. The cheapest picks that fit are a multiple-choice knapsack with one row a
moment, an integer program for HiGHS, which gives its bound as well.

Limits: the bound is one over the plans that are offered, not over all schedules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fxremat_solvers.highs import Program, minimise

_STEPS = 500
# A share of the step's cost. The blocks of a deep model are alike, and HiGHS tries picks that
# differ only in whose they are: with 48 a proof may take 2 s, within this gap a tenth of that.
_GAP = 5e-4
# HiGHS keeps rows to a millionth of its unit; picks that miss a room are asked for with less.
_MARGINS = (0.0, 2e-6, 1e-4, 1e-2)


@dataclass(frozen=True)
class Choice:
    """A plan that can be picked: what it costs, and the bytes it takes at each moment it does."""

    cost: float
    loads: Mapping[int, int]


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
    taken = [0] * len(room)
    for choice in picked:
        for moment, nbytes in choice.loads.items():
            taken[moment] += nbytes
    overload = max((t - r for t, r in zip(taken, room, strict=True)), default=0)
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
    rows: list[list[tuple[int, float]]] = []
    at_least: list[float] = []
    first = 0
    loads: list[list[tuple[int, float]]] = [[] for _ in room]
    at_most = [0] * len(room)
    for choices in parts:
        mine = range(first, first + len(choices))
        rows += [[(k, 1.0) for k in mine], [(k, -1.0) for k in mine]]
        at_least += [1.0, -1.0]
        largest_load: dict[int, int] = {}
        for k, choice in zip(mine, choices, strict=True):
            for moment, nbytes in choice.loads.items():
                if nbytes:
                    loads[moment].append((k, float(nbytes)))
                    if nbytes > largest_load.get(moment, 0):
                        largest_load[moment] = nbytes
        for moment, nbytes in largest_load.items():
            at_most[moment] += nbytes
        first += len(choices)
    largest = max([1.0, *(abs(e) for row in loads for _, e in row), *map(abs, room)])
    for row, limit, most in zip(loads, room, at_most, strict=True):
        if overload_unit is None and most <= limit:
            continue  # whatever is picked
        entries = [(k, -entry / largest) for k, entry in row]
        if overload_unit is not None:
            entries.append((columns, overload_unit))
        rows.append(entries)
        at_least.append(-limit / largest)
    low, high = np.zeros(columns), np.ones(columns)
    scale = max([abs(c) for c in cost if c], default=1.0)
    objective = np.array(cost) / scale
    if overload_unit is not None:
        most = math.ceil((len(parts) + 1) / overload_unit)
        low, high = np.append(low, -float(most)), np.append(high, float(most))
        objective = np.append(objective, 1.0)
    sizes = [0, *(len(row) for row in rows)]
    program = Program(
        cost=objective,
        low=low,
        high=high,
        start=np.cumsum(sizes),
        column=np.array([k for row in rows for k, _ in row], dtype=np.int64),
        entry=np.array([e for row in rows for _, e in row], dtype=np.float64),
        at_least=np.array(at_least, dtype=np.float64),
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
