"""Random moves: what an edit of a schedule deletes and inserts (numba)."""

from __future__ import annotations

import math

import numpy as np

from fxremat_solvers.search.kernel_jit import part
from fxremat_solvers.search.kernel_price import (
    add_deletion,
    add_insertion,
    computes,
    event_step,
    first_event,
    is_deleted,
    op_at,
)
from fxremat_solvers.search.kernel_state import State

_DEEPEST = 100
_MOST_DELETED = 200
_MERGED = 0.25  # of the drops
_MOST_HAULED = 40
_HAUL_REACH = 5.0  # the logarithm of the farthest, in steps

# splitmix64: the same on every machine
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_U11, _U27, _U30, _U31, _U32 = (np.uint64(n) for n in (11, 27, 30, 31, 32))
_TO_UNIT = 2.0**-53


@part
def _random(s: State) -> np.uint64:
    k = s.k[0]
    z = k.rng + _GOLDEN
    k.rng = z
    z = (z ^ (z >> _U30)) * _MIX_1
    z = (z ^ (z >> _U27)) * _MIX_2
    return z ^ (z >> _U31)


@part
def uniform(s: State) -> float:
    return np.float64(_random(s) >> _U11) * _TO_UNIT


@part
def below(s: State, n: int) -> int:
    return int(np.int64(((_random(s) >> _U32) * np.uint64(n)) >> _U32))


# ---- moves ----


@part
def _live_before(s: State, v: int, step: int) -> bool:
    """Is v in memory just before `step` runs, because something at or after `step` reads it?"""
    i = first_event(s, v, step)
    if i == 0:
        return False
    if i < s.lists[v].n:
        return not computes(s, v, i)
    return s.values[v].is_output != 0


@part
def _add_recompute(s: State, op: int, before: int, chance: float, room: int) -> None:
    """Insert `op` before a step, and with probability `chance` the makers of its dead inputs.

    And so on, up to `room` ops; dead inputs that are not made again live longer instead.
    """
    stamp = s.k[0].stamp
    s.ops[op].stamp = stamp
    s.scratch[0].step = op
    s.scratch[0].next = s.ops[op].reads
    depth = 0
    while depth >= 0:
        op = s.scratch[depth].step
        i = s.scratch[depth].next
        if i == s.ops[op].makes:
            add_insertion(s, before, op)
            depth -= 1
            continue
        s.scratch[depth].next = i + 1
        maker = s.values[s.arcs[i]].producer
        if s.ops[maker].stamp == stamp or not s.ops[maker].recomputable or room <= 0:
            continue
        if _live_before(s, s.arcs[i], before):
            continue
        if chance >= 1 or uniform(s) < chance:
            room -= 1
            s.ops[maker].stamp = stamp
            depth += 1
            s.scratch[depth].step = maker
            s.scratch[depth].next = s.ops[maker].reads


@part
def _is_read(s: State, step: int) -> bool:
    """Does anything that stays read what `step` makes, before it is made again?"""
    op = op_at(s, step)
    for i in range(s.ops[op].makes, s.ops[op].end):
        v = s.arcs[i]
        j = first_event(s, v, step) + 1
        n = s.lists[v].n
        while j < n and not computes(s, v, j):
            if not is_deleted(s, event_step(s, v, j)):
                return True
            j += 1
        if j == n and s.values[v].is_output:
            return True
    return False


@part
def _runs_left(s: State, op: int) -> int:
    k = s.k[0]
    n = int(s.lists[k.n_values + op].n)
    for i in range(k.n_deleted):
        if op_at(s, s.scratch[i].deleted) == op:
            n -= 1
    return n


@part
def delete_with_feeders(s: State, step: int) -> None:
    """Delete a step, then the runs that were there only to feed it."""
    k = s.k[0]
    depth = -1
    while True:
        if step >= 0:
            add_deletion(s, step)
            if depth < _DEEPEST and k.n_deleted <= _MOST_DELETED:
                depth += 1
                s.scratch[depth].step = step
                s.scratch[depth].next = s.ops[op_at(s, step)].reads
        if depth < 0:
            return
        above = s.scratch[depth].step
        i = s.scratch[depth].next
        step = -1
        if i == s.ops[op_at(s, above)].makes:
            depth -= 1
            continue
        s.scratch[depth].next = i + 1
        u = s.arcs[i]
        j = first_event(s, u, above) - 1
        while j >= 0 and not computes(s, u, j):
            j -= 1
        if j < 0:
            continue
        feeder = event_step(s, u, j)
        if is_deleted(s, feeder):
            continue
        if _runs_left(s, op_at(s, feeder)) <= s.ops[op_at(s, feeder)].least:
            continue
        if not _is_read(s, feeder):
            step = feeder


@part
def _merge_later_runs(s: State, before: int) -> None:
    """Hold what the inserted ops make until it is used, where it would be made again for that.

    A stretch of a chain is rebuilt once from its start, not once for each value that is dropped.
    """
    for i in range(s.k[0].n_inserted):
        op = s.scratch[i].inserted
        v = s.arcs[s.ops[op].makes]
        n = s.lists[v].n
        j = first_event(s, v, before)
        while j < n and not computes(s, v, j):
            j += 1
        if j < n:
            delete_with_feeders(s, event_step(s, v, j))


@part
def drop(s: State) -> bool:
    """Compute the chosen value again just before the chosen read, so that it need not live on."""
    k = s.k[0]
    v = k.drop_value
    j = k.drop_event
    x = uniform(s)
    chance = 0.0 if x < 0.3 else 1.0 if x < 0.7 else 0.5
    op = s.values[v].producer
    before = event_step(s, v, j)
    k.stamp += 1
    # Nobody read it since it was made: then it is made later, not twice.
    if computes(s, v, j - 1):
        last = event_step(s, v, j - 1)
        made = op_at(s, last)
        unused = True
        for i in range(s.ops[made].makes, s.ops[made].end):
            w = s.arcs[i]
            e = first_event(s, w, last) + 1
            if e < s.lists[w].n and event_step(s, w, e) < before:
                unused = False
                break
        if unused:
            add_deletion(s, last)
            op = made
        elif not s.ops[op].recomputable:
            return False
    _add_recompute(s, op, before, chance, 1 << below(s, 7))
    # Where only the peak counts holding less is the aim.
    if not k.lower_the_peak and uniform(s) < _MERGED:
        _merge_later_runs(s, before)
    return True


@part
def choose_read(s: State, around: int) -> bool:
    """Choose a read before which a value may be dropped; one that spans step `around`, if any."""
    k = s.k[0]
    if k.n_values == 0:
        return False
    for _ in range(8 if around < 0 else 24):
        v = 0
        high = k.n_values - 1
        x = uniform(s) * s.values[high].weight  # drawn by size
        while v < high:
            mid = (v + high) >> 1
            if s.values[mid].weight <= x:
                v = mid + 1
            else:
                high = mid
        n = int(s.lists[v].n)
        if around < 0:
            if n < 2:
                continue
            j = 1 + below(s, n - 1)
            if computes(s, v, j) or event_step(s, v, j) - event_step(s, v, j - 1) < 2:
                continue
        else:
            j = first_event(s, v, around)
            if j == 0 or j == n or computes(s, v, j) or event_step(s, v, j) <= around:
                continue
        if s.ops[s.values[v].producer].recomputable or computes(s, v, j - 1):
            k.drop_value = v
            k.drop_event = j
            return True
    return False


@part
def _made_at(s: State, v: int, step: int) -> int:
    """The step that made value v as it is read at `step`."""
    i = first_event(s, v, step) - 1
    while not computes(s, v, i):
        i -= 1
    return event_step(s, v, i)


@part
def _delete_makers(s: State, step: int, first: int) -> None:
    """Delete the steps from `first` on that make what a step reads."""
    op = op_at(s, step)
    for i in range(s.ops[op].reads, s.ops[op].makes):
        maker = _made_at(s, s.arcs[i], step)
        if maker >= first:
            add_deletion(s, maker)


@part
def _delete_readers(s: State, step: int, stop: int) -> None:
    """Delete the steps before `stop` that read what a step makes."""
    op = op_at(s, step)
    for i in range(s.ops[op].makes, s.ops[op].end):
        v = s.arcs[i]
        n = s.lists[v].n
        j = first_event(s, v, step) + 1
        while j < n and not computes(s, v, j) and event_step(s, v, j) < stop:
            add_deletion(s, event_step(s, v, j))
            j += 1


@part
def haul(s: State) -> bool:
    """Move a step some way, and with it those on the way that it depends on (or that depend on it).

    A shift ends at the first of them: shifts alone hardly change the order of whole branches.
    """
    k = s.k[0]
    step = below(s, k.n_steps)
    reach = 2 + int(math.exp(uniform(s) * _HAUL_REACH))
    earlier = uniform(s) < 0.5
    to = max(0, step - reach) if earlier else min(k.n_steps, step + reach)
    add_deletion(s, step)
    done = 0
    while done < k.n_deleted:
        if k.n_deleted > _MOST_HAULED:
            return False
        # deletions are in order: what one adds lies beyond it, on the way
        if earlier:
            _delete_makers(s, s.scratch[k.n_deleted - 1 - done].deleted, to)
        else:
            _delete_readers(s, s.scratch[done].deleted, to)
        done += 1
    if k.n_deleted > (step - to if earlier else to - step - 1):
        return False  # all on the way comes along: nothing moves
    for i in range(k.n_deleted):
        add_insertion(s, to, op_at(s, s.scratch[i].deleted))
    return True


@part
def shift(s: State) -> bool:
    """Move a step between the steps that it depends on and those that depend on it."""
    n_steps = s.k[0].n_steps
    step = below(s, n_steps)
    op = op_at(s, step)
    low = 0
    high = n_steps
    for i in range(s.ops[op].reads, s.ops[op].makes):
        low = max(low, _made_at(s, s.arcs[i], step) + 1)
    for i in range(s.ops[op].makes, s.ops[op].end):
        v = s.arcs[i]
        j = first_event(s, v, step) + 1
        if j < s.lists[v].n and not computes(s, v, j):
            high = min(high, int(event_step(s, v, j)))
    if high - low < 2:
        return False
    x = uniform(s)
    if x < 0.15:
        to = low
    elif x < 0.35:
        to = high
    elif x < 0.65:
        to = low + below(s, high - low + 1)
    else:
        reach = 2 + int(math.exp(uniform(s) * 4))
        to = step - reach + below(s, 2 * reach + 2)
        to = min(max(to, low), high)
    if to == step or to == step + 1:
        return False
    add_deletion(s, step)
    add_insertion(s, to, op)
    return True
