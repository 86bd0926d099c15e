"""Edits of a schedule, priced exactly (compiled; `kernel_state` lays out the state).

An edit deletes steps and inserts others. It is priced without touching the state: only values
read or made by those steps can change their intervals, and only the memory between the changed
ends has to be looked at (in blocks, skipping those that stay below the budget).

A place on the time line is (step + 1) << SHIFT; the ops that an edit inserts before a step get
the places just below that step's.
"""

from __future__ import annotations

from fxremat_solvers.search.kernel_jit import part
from fxremat_solvers.search.kernel_state import BLOCK, State

SHIFT = 20  # room for this many bits of insertions between two steps
_ROUND_UP = (1 << SHIFT) - 1
_LATE = 1 << 62


@part
def first_step_from(place: int) -> int:
    """The first step at or after a place on the time line."""
    return ((place + _ROUND_UP) >> SHIFT) - 1


@part
def op_at(s: State, step: int) -> int:
    """The op that runs at `step`."""
    return s.ids[s.steps[step]].op


@part
def event_step(s: State, v: int, i: int) -> int:
    """The step of event i of value v."""
    return s.ids[s.pool[s.lists[v].at + i] >> 1].place


@part
def computes(s: State, v: int, i: int) -> int:
    """1 if event i of value v computes it, 0 if it reads it."""
    return s.pool[s.lists[v].at + i] & 1


@part
def first_event(s: State, v: int, step: int) -> int:
    """The first event of v at `step` or later."""
    low = 0
    high = int(s.lists[v].n)
    while low < high:
        mid = (low + high) >> 1
        if event_step(s, v, mid) < step:
            low = mid + 1
        else:
            high = mid
    return low


# ---- making an edit ----


@part
def is_deleted(s: State, step: int) -> bool:
    """Does the edit delete this step?"""
    i = s.k[0].n_deleted - 1
    while i >= 0 and s.scratch[i].deleted != step:
        i -= 1
    return i >= 0


@part
def add_deletion(s: State, step: int) -> None:
    """Delete a step."""
    if is_deleted(s, step):
        return
    k = s.k[0]
    i = k.n_deleted
    k.n_deleted = i + 1
    while i > 0 and s.scratch[i - 1].deleted > step:
        s.scratch[i].deleted = s.scratch[i - 1].deleted
        i -= 1
    s.scratch[i].deleted = step


@part
def add_insertion(s: State, before: int, op: int) -> None:
    """Insert a run of `op` before a step, after what is already inserted there."""
    k = s.k[0]
    i = k.n_inserted
    k.n_inserted = i + 1
    while i > 0 and s.scratch[i - 1].before > before:
        s.scratch[i].before = s.scratch[i - 1].before
        s.scratch[i].inserted = s.scratch[i - 1].inserted
        i -= 1
    s.scratch[i].before = before
    s.scratch[i].inserted = op


# ---- pricing ----


@part
def _touch(s: State, op: int, at: int, deleted: bool) -> None:
    """Enter a run of `op` that the edit deletes (or inserts) into the lists of its values.

    The kind of an event: 1 if it computes the value, and 2 more if it is deleted.
    """
    k = s.k[0]
    for arc in range(s.ops[op].reads, s.ops[op].end):
        v = s.arcs[arc]
        if s.values[v].stamp != k.stamp:
            s.values[v].stamp = k.stamp
            s.values[v].head = -1
            s.values[k.n_touched].touched = v
            k.n_touched += 1
        before = -1
        after = s.values[v].head
        while after >= 0 and s.events[after].at < at:
            before = after
            after = s.events[after].next
        event = k.n_events
        k.n_events = event + 1
        s.events[event].at = at
        s.events[event].kind = 2 if deleted else 0
        if arc >= s.ops[op].makes:
            s.events[event].kind += 1
        s.events[event].next = after
        if before < 0:
            s.values[v].head = event
        else:
            s.events[before].next = event


@part
def _place_insertions(s: State) -> None:
    """Where on the time line the inserted ops run: just below the step that they go before."""
    i = s.k[0].n_inserted - 1
    place = before = -1
    while i >= 0:
        if s.scratch[i].before != before:
            before = s.scratch[i].before
            place = (before + 1) << SHIFT
        place -= 2
        s.scratch[i].place = place
        i -= 1


@part
def _is_legal(s: State) -> bool:
    """Every op runs as often as it must, only recomputable ones more. Sums up the cost as well."""
    k = s.k[0]
    cost = 0.0
    legal = True
    for i in range(k.n_deleted):
        op = op_at(s, s.scratch[i].deleted)
        cost -= s.ops[op].cost
        s.ops[op].delta -= 1
    for i in range(k.n_inserted):
        op = s.scratch[i].inserted
        cost += s.ops[op].cost
        s.ops[op].delta += 1
    for i in range(k.n_deleted):
        op = op_at(s, s.scratch[i].deleted)
        if s.lists[k.n_values + op].n + s.ops[op].delta < s.ops[op].least:
            legal = False
    for i in range(k.n_inserted):
        op = s.scratch[i].inserted
        if s.ops[op].delta > 0 and not s.ops[op].recomputable:
            legal = False
    for i in range(k.n_deleted):
        s.ops[op_at(s, s.scratch[i].deleted)].delta = 0
    for i in range(k.n_inserted):
        s.ops[s.scratch[i].inserted].delta = 0
    k.d_cost = cost
    return legal


@part
def _merge(s: State, v: int) -> int:
    """The events of v after the edit, as place * 2 + computes, into `merged`; how many."""
    last = int(s.lists[v].n)
    n = 0
    i = 0
    x = int(s.values[v].head)
    while i < last or x >= 0:
        at = (event_step(s, v, i) + 1) << SHIFT if i < last else _LATE
        if x >= 0 and s.events[x].at <= at:
            kind = s.events[x].kind
            if kind & 2:
                i += 1  # the same step's event
            else:
                s.events[n].merged = s.events[x].at * 2 + kind
                n += 1
            x = int(s.events[x].next)
        else:
            s.events[n].merged = at * 2 + computes(s, v, i)
            n += 1
            i += 1
    return n


@part
def _changes_of(s: State, v: int, n: int) -> None:
    """Where the memory of v changes: old and new intervals in order, equal ones cancel."""
    k = s.k[0]
    b = s.values[v].nbytes
    last = int(s.lists[v].n)
    is_output = s.values[v].is_output
    lazy = s.values[v].lazy
    end_of_time = (k.n_steps + 1) << SHIFT
    new = 0
    old = 0
    old_start = old_end = new_start = new_end = -1
    while True:
        while old_start < 0 and old < last:
            old_start = old_end = (event_step(s, v, old) + 1) << SHIFT
            old += 1
            while old < last and not computes(s, v, old):
                old_end = (event_step(s, v, old) + 1) << SHIFT
                old += 1
            if old == last and is_output:
                old_end = end_of_time
            if lazy and old_start == old_end:
                old_start = -1  # nobody reads it: it is not there
        while new_start < 0 and new < n:
            new_start = new_end = s.events[new].merged >> 1
            new += 1
            while new < n and not s.events[new].merged & 1:
                new_end = s.events[new].merged >> 1
                new += 1
            if new == n and is_output:
                new_end = end_of_time
            if lazy and new_start == new_end:
                new_start = -1
        if old_start < 0 and new_start < 0:
            return
        # `more` from `start` to before `stop`, or the other way around where `stop` is first
        if old_start == new_start:
            start = old_end + 1
            stop = new_end + 1
            more = b
            old_start = new_start = -1
        elif new_start < 0 or 0 <= old_start < new_start:
            start = old_start
            stop = old_end + 1
            more = -b
            old_start = -1
        else:
            start = new_start
            stop = new_end + 1
            more = b
            new_start = -1
        if start != stop:
            s.changes[k.n_changes].at = start
            s.changes[k.n_changes].nbytes = more
            s.changes[k.n_changes + 1].at = stop
            s.changes[k.n_changes + 1].nbytes = -more
            k.n_changes += 2


@part
def _sort_changes(s: State) -> None:
    """By place (shell sort). Changes at one place may stand in any order: their sums are exact."""
    n = s.k[0].n_changes
    gap = 1
    while 3 * gap + 48 < n:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            at = s.changes[i].at
            nbytes = s.changes[i].nbytes
            j = i
            while j >= gap and s.changes[j - gap].at > at:
                s.changes[j].at = s.changes[j - gap].at
                s.changes[j].nbytes = s.changes[j - gap].nbytes
                j -= gap
            s.changes[j].at = at
            s.changes[j].nbytes = nbytes
        gap //= 3


@part
def _sweep(s: State) -> None:
    """The change in bytes above the budget, and the worst excess, from the changes in order."""
    k = s.k[0]
    budget = k.budget
    n_steps = k.n_steps
    n_changes = k.n_changes
    over = delta = worst = 0.0
    worst_at = -1
    inserted = deleted = place = t = 0
    for c in range(n_changes + 1):
        stop = s.changes[c].at if c < n_changes else ((n_steps + 1) << SHIFT) + 1
        if stop > place:
            while inserted < k.n_inserted and s.scratch[inserted].place < stop:
                before = s.scratch[inserted].before
                used = s.resident[before - 1] if before else 0.0
                used = used + delta + s.ops[s.scratch[inserted].inserted].workspace
                if used > budget:
                    over += used - budget
                    if used - budget > worst:
                        worst = used - budget
                        worst_at = before
                inserted += 1
            end = min(first_step_from(stop), n_steps)
            while deleted < k.n_deleted and s.scratch[deleted].deleted < end:
                used = s.running[s.scratch[deleted].deleted]
                if used + delta > budget:
                    over -= used + delta - budget  # what follows adds it
                deleted += 1
            if delta != 0:
                while t < end:
                    upto = min((t // BLOCK + 1) * BLOCK, end)
                    top = s.block_max[t // BLOCK]
                    if top <= budget and top + delta <= budget:
                        t = upto
                    while t < upto:
                        was = s.running[t] - budget
                        now = was + delta
                        if was > 0:
                            over -= was
                        if now > 0:
                            over += now
                            if now > worst:
                                worst = now
                                worst_at = t
                        t += 1
            place = stop
            t = end
        if c < n_changes:
            delta += s.changes[c].nbytes
    k.worst_at = worst_at
    k.d_over = over


@part
def price(s: State) -> bool:
    """What the edit changes in cost (`d_cost`) and in bytes above the budget (`d_over`).

    False if it can't be applied.
    """
    k = s.k[0]
    k.stamp += 1
    k.n_events = k.n_touched = k.n_changes = 0
    if not _is_legal(s):
        return False
    _place_insertions(s)
    for i in range(k.n_deleted + k.n_inserted):
        j = i - k.n_deleted
        if j < 0:
            op = op_at(s, s.scratch[i].deleted)
            place = (s.scratch[i].deleted + 1) << SHIFT
        else:
            op = s.scratch[j].inserted
            place = s.scratch[j].place
        _touch(s, op, place, j < 0)
    for i in range(k.n_touched):
        v = s.values[i].touched
        n = _merge(s, v)
        if n and not s.events[0].merged & 1:
            return False  # read before it is made
        if s.values[v].nbytes != 0:
            _changes_of(s, v, n)
    _sort_changes(s)
    _sweep(s)
    return True
