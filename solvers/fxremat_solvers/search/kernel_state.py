"""The state of a schedule search as arrays: its layout, building it, giving it more room.

A schedule is a sequence of steps. A step has an id that survives edits and runs an op: `steps`
holds the ids in order. The ops here are the rows of a problem (`rows`): a first run that differs
from its reruns is an op that runs once, the reruns are another that may run any number of times,
none included, after it (a value without bytes says so). Only then has a value two makers.

Every value has a list of events, the steps that compute or read it in order (id * 2, plus 1 where
it computes), which fixes the intervals during which it is live by the oracle's rules (`simulate`);
every op has a list of the ids that run it. The lists lie in one `pool`; a list that outgrows its
room moves to the pool's end. For every step there are the bytes live while it runs (`running`) and
after it (`resident`). Bytes are doubles holding whole numbers, exact to 2^53.

Few arrays of records rather than many of numbers, all 64 bits wide: numba hands the state to a
function array by array, seven machine words each, and compiles a function again for every width
of integer it is called with. Written as one array a field, the kernel takes four times as long to
compile and is a third slower. The record classes say what a record holds; their dtypes are made
from them. To numpy and numba a `Sequence` of them is an array.
"""

# the dtypes of the arrays are made here
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.rows import rows_of
from fxremat_solvers.model.vectorised_replay import live_bytes

BLOCK = 64  # steps whose largest `running` is kept

Ints = MutableSequence[int]
Floats = MutableSequence[float]


class Scalars(Protocol):
    """Single numbers, in one record that the kernel's functions share."""

    # of the problem
    n_ops: int
    n_values: int
    # of the schedule
    n_steps: int
    n_free: int
    n_repeated: int
    pool_end: int
    cost: float
    budget: float
    over: float
    # of the edit that is being made and priced
    stamp: int
    n_deleted: int
    n_inserted: int
    n_touched: int
    n_events: int
    n_changes: int
    worst_at: int
    d_cost: float
    d_over: float
    drop_value: int  # the value to drop, and the event (a read) before which
    drop_event: int
    # of the search
    rng: np.uint64
    edits_done: int
    accepted: int  # 1: the edit is to be applied
    best_fits: int
    best_room: int
    n_best: int
    best_cost: float
    best_peak: float
    temperature: float
    byte_price: float
    pressure: float
    # its settings
    edits: int
    lower_the_peak: int
    temperature_start: float
    temperature_end: float
    price_start: float
    price_end: float
    swap: float  # the share of swaps


class Op(Protocol):
    """An op: arcs reads..makes are the values it reads, arcs makes..end those it makes."""

    reads: int
    makes: int
    end: int
    cost: float
    workspace: float
    recomputable: int
    least: int  # how often it runs, at least
    stamp: int
    delta: int


class Value(Protocol):
    """A value; resident ones weigh nothing and no op reads them. `head`: its edit events."""

    producer: int  # the op that makes it again, where one does
    is_output: int
    lazy: int
    nbytes: float
    weight: float  # of this value and those before it, to draw values by size
    stamp: int
    head: int
    touched: int


class List(Protocol):
    """A list in the pool. Value v has list v, op i has list n_values + i."""

    at: int
    n: int
    cap: int


class StepId(Protocol):
    """What a step id stands for. `repeated_at`: where it is in `repeated`, or -1."""

    op: int
    place: int
    repeated_at: int


class Spare(Protocol):
    """A step while steps are rearranged."""

    step_id: int
    running: float
    resident: float
    best: int  # of the best schedule


class Scratch(Protocol):
    """Short lists of several kinds, side by side."""

    free_id: int
    repeated: int  # ids of steps of ops that run several times
    deleted: int  # places of the steps that the edit deletes, in order
    inserted: int  # ops that it inserts
    before: int  # and the places they go before
    place: int  # where they run
    inserted_id: int
    step: int  # stack of the move makers: an op or a step, and the arc to go on with
    next: int


class Event(Protocol):
    """An event of the edit, in the linked list of its value."""

    at: int
    kind: int
    next: int
    merged: int


class Change(Protocol):
    """A change of the memory in use at a place on the time line."""

    at: int
    nbytes: float


class State(NamedTuple):
    """A problem, a schedule of it and the scratch space of the search."""

    k: MutableSequence[Scalars]  # one
    ops: Sequence[Op]
    arcs: Ints
    values: Sequence[Value]
    lists: Sequence[List]
    pool: Ints
    steps: Ints
    running: Floats
    resident: Floats
    block_max: Floats
    ids: Sequence[StepId]
    spare: Sequence[Spare]
    scratch: Sequence[Scratch]
    events: Sequence[Event]
    changes: Sequence[Change]


_KINDS = {"int": np.int64, "float": np.float64, "np.uint64": np.uint64}


def _records(n: int, record: type) -> Any:
    dtype = np.dtype([(name, _KINDS[kind]) for name, kind in record.__annotations__.items()])
    return np.zeros(n, dtype)


# What doubles when the schedule or the pool runs out of room.
_GROWING = (
    *("pool", "steps", "running", "resident", "block_max", "ids", "spare", "scratch"),
    *("events", "changes"),
)
_MOST_INSERTED = 65  # by one edit: a recomputation and up to 64 ops that feed it


class Arrays(NamedTuple):
    """A problem as arrays: `ops`, `arcs` and `values` of its states."""

    ops: Any
    arcs: Any
    values: Any


def arrays_of(problem: RematProblem) -> Arrays:
    """The arrays of a problem."""
    resident = set(problem.inputs)
    ends = set(problem.outputs) - resident
    rows = rows_of(problem)
    n_ops = len(problem.ops)
    reads = [[v for v in dict.fromkeys(run.inputs) if v not in resident] for run in rows.runs]
    makes = [list(run.outputs) for run in rows.runs]
    producer = [max(maker, 0) for maker in problem.producer]
    for before, row in enumerate(range(n_ops, len(rows.runs)), len(problem.values)):
        for value in makes[row]:
            producer[value] = row
        # The first run comes first: it makes a value without bytes that the others read.
        makes[rows.op_of[row]].append(before)
        reads[row].append(before)
        producer.append(rows.op_of[row])
    arcs = [v for read, made in zip(reads, makes, strict=True) for v in (*read, *made)]
    n_read = np.array([len(read) for read in reads], np.int64)
    n_arcs = n_read + np.array([len(made) for made in makes], np.int64)
    ops = _records(len(rows.runs), Op)
    ops["end"] = np.cumsum(n_arcs)
    ops["reads"] = ops["end"] - n_arcs
    ops["makes"] = ops["reads"] + n_read
    ops["cost"] = [run.cost for run in rows.runs]
    ops["workspace"] = [run.workspace_bytes for run in rows.runs]
    ops["recomputable"][:n_ops] = [
        op.recomputable and k not in problem.differing for k, op in enumerate(problem.ops)
    ]
    ops["recomputable"][n_ops:] = 1
    ops["least"][:n_ops] = 1
    values = _records(len(producer), Value)
    values["producer"] = producer
    values["is_output"] = [v in ends for v in range(len(values))]
    values["lazy"][: len(problem.values)] = [value.lazy for value in problem.values]
    values["nbytes"][: len(problem.values)] = problem.counted_bytes
    values["weight"] = np.cumsum(values["nbytes"])
    return Arrays(ops, np.array(arcs, np.int64), values)


def load(arrays: Arrays, schedule: Sequence[int], budget: float, best_room: int) -> State:
    """The whole state of a schedule of rows; the best found from it may take `best_room` steps."""
    ops, arcs, values = arrays
    order = np.array(schedule, np.int64)
    n, n_ops, n_values = len(order), len(ops), len(values)
    steps = np.arange(n)

    # The lists: (list, step, item), in order of list and step.
    n_arcs = (ops["end"] - ops["reads"])[order]
    at = np.repeat(steps, n_arcs)
    arc = np.arange(len(at)) + np.repeat(ops["reads"][order] - (np.cumsum(n_arcs) - n_arcs), n_arcs)
    made = arc >= np.repeat(ops["makes"][order], n_arcs)
    keys = np.concatenate([arcs[arc], n_values + order])
    items = np.concatenate([2 * at + made, steps])
    at = np.concatenate([at, steps])
    by_list = np.lexsort((at, keys))
    at, keys, items = at[by_list], keys[by_list], items[by_list]
    lists = _records(n_values + n_ops, List)
    lists["n"] = np.bincount(keys, minlength=n_values + n_ops)
    lists["cap"] = lists["n"] + lists["n"] // 2 + 4
    pool_end = int(lists["cap"].sum())
    lists["at"] = np.cumsum(lists["cap"]) - lists["cap"]
    rank = np.arange(len(keys)) - (np.cumsum(lists["n"]) - lists["n"])[keys]
    most_arcs = max(ops["end"] - ops["reads"], default=0)
    pool_room = 2 * pool_end + _MOST_INSERTED * int(most_arcs)
    pool: Any = np.zeros(pool_room, np.int64)
    pool[lists["at"][keys] + rank] = items

    by_value = slice(len(arc))  # the lists of values come first
    made = items[by_value] % 2 == 1
    final, lazy = values["is_output"] == 1, values["lazy"] == 1
    live, resident = live_bytes(
        keys[by_value], made, at[by_value], n, values["nbytes"], final, lazy
    )
    running = live + ops["workspace"][order]

    room = 2 * n + 256
    block_max: Any = np.zeros(room // BLOCK + 2)
    ids = _records(room, StepId)
    spare = _records(room, Spare)
    scratch = _records(room, Scratch)
    tops = np.maximum.reduceat(running, np.arange(0, n, BLOCK)) if n else running
    block_max[: len(tops)] = np.maximum(tops, 0.0)
    spare["best"][:n] = order
    ids["op"][:n] = order
    ids["place"][:n] = steps
    ids["repeated_at"] = -1
    repeated = _repeated(order, ops["least"][order] == 0)
    scratch["repeated"][: len(repeated)] = repeated
    ids["repeated_at"][repeated] = np.arange(len(repeated))
    scratch["free_id"][: room - n] = np.arange(room - 1, n - 1, -1)

    state = State(
        k=_records(1, Scalars),
        ops=ops.copy(),
        arcs=arcs,
        values=values.copy(),
        lists=lists,
        pool=pool,
        steps=_resized(steps, room),
        running=_resized(running, room),
        resident=_resized(resident, room),
        block_max=block_max,
        ids=ids,
        spare=spare,
        scratch=scratch,
        events=_records(3 * pool_room, Event),
        changes=_records(8 * (pool_room + n_values), Change),
    )
    k = scalars_of(state)
    k.n_ops, k.n_values, k.n_steps = n_ops, n_values, n
    k.n_free, k.n_repeated, k.pool_end = room - n, len(repeated), pool_end
    k.best_room = best_room
    k.cost = _sum(ops["cost"][order])
    set_budget(state, budget)
    return state


def set_budget(state: State, budget: float) -> None:
    """Change the budget, and count the bytes above it again."""
    k = scalars_of(state)
    running = np.asarray(state.running)[: k.n_steps]
    k.budget = budget
    k.over = _sum(np.maximum(running - budget, 0.0))


def enlarged(state: State) -> State:
    """The same state with twice the room for steps and lists."""
    longer = {name: _doubled(getattr(state, name)) for name in _GROWING}
    k = scalars_of(state)
    added = np.arange(len(state.ids), len(longer["ids"]))[::-1]
    longer["scratch"]["free_id"][k.n_free : k.n_free + len(added)] = added
    k.n_free += len(added)
    return state._replace(**longer)


def scalars_of(state: State) -> Scalars:
    """The scalars of `state` for Python: writing to them changes the state."""
    return cast(Any, state.k).view(np.recarray)[0]


def ops_of(state: State) -> list[int]:
    """The schedule that the state holds, in rows."""
    steps = np.asarray(state.steps)[: scalars_of(state).n_steps]
    return cast(Any, state.ids)["op"][steps].tolist()


def best_of(state: State) -> tuple[int, ...]:
    """The best schedule found, in rows."""
    return tuple(cast(Any, state.spare)["best"][: scalars_of(state).n_best].tolist())


def peak_of(state: State) -> float:
    """The peak memory of the schedule that the state holds."""
    return float(max(np.asarray(state.running)[: scalars_of(state).n_steps], default=0.0))


def _repeated(ops: Any, optional: Any) -> Any:
    """The steps of ops that run more often than they must, in the order in which that came out."""
    by_op = np.argsort(ops, kind="stable")
    first = np.append(True, ops[by_op][1:] != ops[by_op][:-1])[: len(ops)]
    only = first & np.append(first[1:], True)[: len(ops)] & ~optional[by_op]
    first &= ~optional[by_op]
    # the first run comes out with the second, just before it
    key = np.where(first, 2 * np.append(by_op[1:], 0)[: len(ops)], 2 * by_op + 1)
    return by_op[~only][np.argsort(key[~only], kind="stable")]


def _sum(items: Any) -> float:
    """Added one by one from the first."""
    return float(np.cumsum(items)[-1]) if len(items) else 0.0


def _resized(items: Any, length: int) -> Any:
    padded = np.zeros(length, items.dtype)
    padded[: len(items)] = items
    return padded


def _doubled(items: Any) -> Any:
    return _resized(items, 2 * len(items))
