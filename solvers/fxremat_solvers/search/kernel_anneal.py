"""Annealing over edits of a schedule: which of the random moves are taken (numba).

`anneal` runs in slices: it stops at a given number of edits, or when the state needs more room,
and goes on where it was when called again.
"""

from __future__ import annotations

import math

from fxremat_solvers.search.kernel_apply import apply, has_room
from fxremat_solvers.search.kernel_jit import compiled, spliced
from fxremat_solvers.search.kernel_moves import (
    below,
    choose_read,
    delete_with_feeders,
    drop,
    haul,
    shift,
    uniform,
)
from fxremat_solvers.search.kernel_price import op_at, price
from fxremat_solvers.search.kernel_state import BLOCK, State

_SHIFT = 0  # kinds of moves; 2 undoes a recomputation
_DROP = 1
_SWAP = 3
_HAULED = 0.5  # of the shifts
_PRICE_UP, _PRICE_DOWN = 1.05, 0.97  # towards the end where the budget is passed, and elsewhere


@spliced
def _cool(s: State, i: int) -> None:
    """Temperature and price of a byte at edit i."""
    k = s.k[0]
    f = i / k.edits
    k.temperature = k.temperature_start * (k.temperature_end / k.temperature_start) ** f
    if f > 0.7 and k.over > 0:
        k.pressure *= _PRICE_UP
    elif f < 0.9:
        k.pressure = max(1.0, k.pressure * _PRICE_DOWN)
    k.byte_price = k.pressure * k.price_start * (k.price_end / k.price_start) ** f


@spliced
def _propose(s: State) -> bool:
    """Make a random move and price it; is it taken?"""
    k = s.k[0]
    k.n_deleted = k.n_inserted = 0
    # The others have a share of one each.
    kind = min(int(uniform(s) * (_SWAP + k.swap)), _SWAP)
    if kind == _SHIFT:
        made = haul(s) if uniform(s) < _HAULED else shift(s)
    elif kind == _DROP:
        made = True
    else:
        made = k.n_repeated > 0
        if made:
            again = s.scratch[below(s, k.n_repeated)].repeated
            delete_with_feeders(s, s.ids[again].place)
    k.worst_at = -1
    for turn in range(2 if kind == _SWAP else 1):
        if made and (kind == _DROP or turn == 1):
            made = choose_read(s, k.worst_at) and drop(s)
        made = made and price(s)
        if kind == _SWAP and turn == 0:
            made = made and k.worst_at >= 0
    if not made:
        return False
    up = k.d_cost + k.byte_price * k.d_over
    return up <= 0 or (k.temperature > 0 and uniform(s) < math.exp(-up / k.temperature))


@spliced
def _remember(s: State, i: int) -> None:
    """Copy the schedule if it is the best so far: the cheapest that fits, else of lowest peak."""
    k = s.k[0]
    if k.n_steps > k.best_room:
        return
    if k.over <= 0 and not k.lower_the_peak:
        if k.best_fits and k.cost >= k.best_cost:
            return
        k.best_fits = 1
        k.best_cost = k.cost
    else:
        # finding the peak is linear: not every time
        if k.best_fits or (k.over > 0 and i & 15):
            return
        top = 0.0
        for block in range((k.n_steps + BLOCK - 1) // BLOCK):
            top = max(top, s.block_max[block])
        if top >= k.best_peak:
            return
        k.best_peak = top
        if k.lower_the_peak:
            k.budget = top * 0.999 - 1
            k.over = 0.0
            for t in range(k.n_steps):
                if s.running[t] > k.budget:
                    k.over += s.running[t] - k.budget
    k.n_best = k.n_steps
    for t in range(k.n_steps):
        s.spare[t].best = op_at(s, t)


@compiled
def anneal(s: State, stop: int) -> None:
    """Go on to edit `stop`, or until an accepted edit needs more room."""
    k = s.k[0]
    i = k.edits_done
    while i < stop:
        if not k.accepted:
            if i & 127 == 0:
                _cool(s, i)
            if not _propose(s):
                i += 1
                continue
            k.accepted = 1
        if not has_room(s):
            break
        k.accepted = 0
        apply(s)
        _remember(s, i)
        i += 1
    k.edits_done = i
