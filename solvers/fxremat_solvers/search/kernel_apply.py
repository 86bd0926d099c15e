"""Edits of a schedule, applied (compiled; `kernel_state` lays out the state).

Applying an edit touches the lists of the values that its steps read and make, the memory between
the places where those values change (found by `kernel_price`), and the steps behind it, which move.
"""

from __future__ import annotations

from fxremat_solvers.search.kernel_jit import part
from fxremat_solvers.search.kernel_price import first_event, first_step_from
from fxremat_solvers.search.kernel_state import BLOCK, State


@part
def _unmark_repeated(s: State, step_id: int) -> None:
    k = s.k[0]
    at = s.ids[step_id].repeated_at
    if at >= 0:
        k.n_repeated -= 1
        last = s.scratch[k.n_repeated].repeated
        s.scratch[at].repeated = last
        s.ids[last].repeated_at = at
        s.ids[step_id].repeated_at = -1


@part
def _insert(s: State, list_: int, index: int, item: int) -> None:
    """Insert into a list of the pool."""
    n = int(s.lists[list_].n)
    at = int(s.lists[list_].at)
    if n == s.lists[list_].cap:
        k = s.k[0]
        for i in range(n):
            s.pool[k.pool_end + i] = s.pool[at + i]
        at = k.pool_end
        s.lists[list_].at = at
        s.lists[list_].cap = 2 * n + 4
        k.pool_end = at + 2 * n + 4
    for i in range(at + n, at + index, -1):
        s.pool[i] = s.pool[i - 1]
    s.pool[at + index] = item
    s.lists[list_].n = n + 1


@part
def _remove(s: State, list_: int, index: int) -> None:
    at = int(s.lists[list_].at)
    n = int(s.lists[list_].n) - 1
    for i in range(at + index, at + n):
        s.pool[i] = s.pool[i + 1]
    s.lists[list_].n = n


@part
def _link(s: State, step_id: int) -> None:
    """Enter the step into the lists of its op and values; its place must be set."""
    op = s.ids[step_id].op
    step = s.ids[step_id].place
    k = s.k[0]
    run = k.n_values + op
    n = int(s.lists[run].n) + 1
    _insert(s, run, n - 1, step_id)
    s.ids[step_id].repeated_at = -1
    least = s.ops[op].least
    if n > least:
        for i in range(n - 1 if n > 2 or least == 0 else 0, n):
            other = s.pool[s.lists[run].at + i]
            s.ids[other].repeated_at = k.n_repeated
            s.scratch[k.n_repeated].repeated = other
            k.n_repeated += 1
    for i in range(s.ops[op].reads, s.ops[op].end):
        v = s.arcs[i]
        made = 1 if i >= s.ops[op].makes else 0
        _insert(s, v, first_event(s, v, step), 2 * step_id + made)


@part
def _unlink(s: State, step_id: int) -> None:
    op = s.ids[step_id].op
    step = s.ids[step_id].place
    run = s.k[0].n_values + op
    i = 0
    while s.pool[s.lists[run].at + i] != step_id:
        i += 1
    _remove(s, run, i)
    _unmark_repeated(s, step_id)
    if s.lists[run].n == 1 and s.ops[op].least == 1:
        _unmark_repeated(s, s.pool[s.lists[run].at])
    for i in range(s.ops[op].reads, s.ops[op].end):
        v = s.arcs[i]
        _remove(s, v, first_event(s, v, step))


@part
def _refresh_blocks(s: State, first: int, last: int) -> None:
    n_steps = s.k[0].n_steps
    last = min(last, n_steps)
    block = first // BLOCK
    while block * BLOCK < last:
        top = 0.0
        for t in range(block * BLOCK, min((block + 1) * BLOCK, n_steps)):
            top = max(top, s.running[t])
        s.block_max[block] = top
        block += 1


@part
def has_room(s: State) -> bool:
    """Is there room to apply the edit, whatever lists it makes grow?"""
    k = s.k[0]
    wanted = 0
    for i in range(k.n_inserted):
        op = s.scratch[i].inserted
        wanted += 2 * s.lists[k.n_values + op].n
        for j in range(s.ops[op].reads, s.ops[op].end):
            wanted += 2 * s.lists[s.arcs[j]].n
        wanted += (1 + s.ops[op].end - s.ops[op].reads) * (2 * k.n_inserted + 4)
    fits = k.n_steps + 2 * k.n_inserted <= len(s.steps)
    return fits and k.pool_end + wanted <= len(s.pool)


@part
def _insert_memory(s: State) -> None:
    """The memory of the inserted steps, from the old arrays, to the front of the scratch ones."""
    k = s.k[0]
    delta = 0.0
    c = 0
    for i in range(k.n_inserted):
        at = s.scratch[i].place
        before = s.scratch[i].before
        base = s.resident[before - 1] if before else 0.0
        while c < k.n_changes and s.changes[c].at <= at:
            delta += s.changes[c].nbytes
            c += 1
        s.spare[i].running = base + delta + s.ops[s.scratch[i].inserted].workspace
        while c < k.n_changes and s.changes[c].at <= at + 1:
            delta += s.changes[c].nbytes
            c += 1
        s.spare[i].resident = base + delta


@part
def _rearrange(s: State, low: int, high: int) -> int:
    """Steps low..high with deletions left out and insertions put in; how many they are then."""
    k = s.k[0]
    n_inserted = k.n_inserted
    n = d = i = 0
    for t in range(low, high + 1):
        while i < n_inserted and s.scratch[i].before == t:
            k.n_free -= 1
            step_id = s.scratch[k.n_free].free_id
            s.ids[step_id].op = s.scratch[i].inserted
            s.scratch[i].inserted_id = step_id
            s.spare[n].step_id = step_id
            s.spare[n_inserted + n].running = s.spare[i].running
            s.spare[n_inserted + n].resident = s.spare[i].resident
            n += 1
            i += 1
        if t == high:
            break
        if d < k.n_deleted and s.scratch[d].deleted == t:
            s.scratch[k.n_free].free_id = s.steps[t]
            k.n_free += 1
            d += 1
            continue
        s.spare[n].step_id = s.steps[t]
        s.spare[n_inserted + n].running = s.running[t]
        s.spare[n_inserted + n].resident = s.resident[t]
        n += 1
    net = n_inserted - k.n_deleted
    old_n = k.n_steps
    # towards the end from there, so that nothing is written over before it has moved
    first, end, way = (old_n - 1, high - 1, -1) if net > 0 else (high, old_n, 1)
    if net:
        for t in range(first, end, way):
            s.steps[t + net] = s.steps[t]
            s.running[t + net] = s.running[t]
            s.resident[t + net] = s.resident[t]
    for t in range(n):
        s.steps[low + t] = s.spare[t].step_id
        s.running[low + t] = s.spare[n_inserted + t].running
        s.resident[low + t] = s.spare[n_inserted + t].resident
    k.n_steps = old_n + net
    return n


@part
def apply(s: State) -> None:
    """Apply the edit that `price` was last asked about. There must be room (`has_room`)."""
    k = s.k[0]
    old_n = k.n_steps
    net = k.n_inserted - k.n_deleted
    k.cost += k.d_cost
    k.over += k.d_over
    low = old_n
    high = 0
    if k.n_deleted:
        low = int(s.scratch[0].deleted)
        high = int(s.scratch[k.n_deleted - 1].deleted) + 1
    if k.n_inserted:
        low = min(low, int(s.scratch[0].before))
        high = max(high, int(s.scratch[k.n_inserted - 1].before))
    for i in range(k.n_deleted):
        _unlink(s, s.steps[s.scratch[i].deleted])
    _insert_memory(s)
    # the memory of the steps that stay
    first = low
    last = high
    delta = 0.0
    for c in range(k.n_changes - 1):
        delta += s.changes[c].nbytes
        start = s.changes[c].at
        stop = s.changes[c + 1].at
        if delta == 0 or start == stop:
            continue
        t = max(first_step_from(start), 0)
        end = first_step_from(stop)
        first = min(first, t)
        last = max(last, end)
        for step in range(t, min(end, old_n)):
            s.running[step] += delta
        t = max(first_step_from(start - 1), 0)
        for step in range(t, min(first_step_from(stop - 1), old_n)):
            s.resident[step] += delta
    n = _rearrange(s, low, high)
    for t in range(low, k.n_steps if net else low + n):
        s.ids[s.steps[t]].place = t
    for i in range(k.n_inserted):
        _link(s, s.scratch[i].inserted_id)
    _refresh_blocks(s, first, k.n_steps if net else last + 1)
