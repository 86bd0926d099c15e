"""Binomial checkpointing: the optimal schedule of a uniform chain and its reversal, closed form.

Time stepping and its adjoint: x_i = F_i(x_{i-1}) for i = 1..n, then g_{i-1} = B_i(x_{i-1}, g_i)
for i = n..1, where B_i may read x_i too. With s slots for states (the initial state takes one)
Revolve (Griewank & Walther 2000, ACM TOMS 26) needs

    P(n, s) = r n - beta(s + 1, r - 1),  beta(s, t) = C(s + t, s),  r = min t: beta(s, t) >= n

advances, the least possible: P(1, s) = 0, P(n, 1) = n (n - 1) / 2, and P(n, s) is the minimum
over m of m + P(m, s) + P(n - m, s - 1). A graph runs one more forward step, the last.

In the oracle's memory model a step holds its input and its output beside the slots and one
gradient, so a peak of M states leaves M - 3 slots (M - 4 where B_i reads x_i), one more where the
initial state is a problem input and is not counted. Where no gradient is live during the first
sweep, the room it will take holds one more state until then: the last two steps are *fused* into
one, for P(n - 1, s) + 1 advances. Both are tried, and the oracle's figures decide.

Limits: equal sizes of states and gradients and equal forward costs; one op per forward step and
per backward step; nothing but the last gradient, the last state and the loss may be an output.
With free (size 0) gradients the optimum is not binomial: such graphs are not recognised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Schedule
from fxremat_solvers.model.vectorised_replay import profiler

MAX_STEPS = 30_000_000
"""Longest schedule that is written out."""

_MAX_FUSED = 3

_MAX_INITIAL = 2
"""Most ops before the first forward step: the initial state's, and perhaps the seed's."""

_MAX_TURN = 4
"""Most ops between the last forward step and the first backward step (loss, seed)."""


@dataclass(frozen=True)
class UniformChain:
    """A recognised chain: `forward[i - 1]` is F_i, `backward[i - 1]` is B_i.

    `initial` are the ops that make x_0 (none where it is a problem input), `turn` those between
    the last forward step and the first backward step.
    """

    initial: tuple[int, ...]
    forward: tuple[int, ...]
    turn: tuple[int, ...]
    backward: tuple[int, ...]
    state_bytes: int


def extra_advances(n: int, slots: int) -> int:
    """P(n, slots): the fewest step evaluations beyond the first n that reverse n uniform steps.

    `slots` holds the initial state too. Raises `ValueError` for n < 1 or slots < 1.
    """
    if n < 1 or slots < 1:
        raise ValueError(f"n is {n} and slots is {slots}: both must be at least 1")
    r = _repetition(n, slots)
    return r * n - _beta(slots + 1, r - 1)


def binomial_schedule(problem: RematProblem, budget_bytes: int) -> Schedule | None:
    """The optimal schedule of a uniform chain; None for other graphs, or too small a budget.

    Also None where the schedule would be longer than `MAX_STEPS` (very few slots for a very long
    chain).
    """
    chain = recognise(problem)
    if chain is None or problem.differing or any(value.lazy for value in problem.values):
        return None
    best: list[int] | None = None
    slots = min(len(chain.forward), budget_bytes // chain.state_bytes)
    least = 1
    for fused in range(1, min(_MAX_FUSED, len(chain.forward)) + 1):
        found = _most_slots(problem, chain, budget_bytes, fused, least, slots)
        if found is None:
            # Fewer slots cost more than a fused step saves.
            if best is not None:
                break
            continue
        steps, least = found
        if best is None or len(steps) < len(best):
            best = steps
    return None if best is None else Schedule(tuple(best))


def _most_slots(
    problem: RematProblem,
    chain: UniformChain,
    budget_bytes: int,
    fused: int,
    least: int,
    most: int,
) -> tuple[list[int], int] | None:
    """The schedule with the most slots that fits, for one number of fused last steps."""
    n = len(chain.forward) - fused + 1
    replay = profiler(problem)
    for slots in range(min(n, most), least - 1, -1):
        if extra_advances(n, slots) + 2 * n > MAX_STEPS:
            return None
        steps = _write(chain, slots, fused)
        if replay.peak_bytes(np.array(steps, dtype=np.int64)) <= budget_bytes:
            return steps, slots
    return None


def recognise(problem: RematProblem) -> UniformChain | None:
    """The chain that a graph is, or None."""
    length = len(problem.ops)
    for n_initial in range(_MAX_INITIAL + 1):
        for n_turn in range(_MAX_TURN + 1):
            steps, odd = divmod(length - n_initial - n_turn, 2)
            if steps >= 1 and not odd:
                chain = _match(problem, n_initial, steps, n_turn)
                if chain is not None:
                    return chain
    return None


def _match(problem: RematProblem, n_initial: int, n: int, n_turn: int) -> UniformChain | None:
    ops, nbytes = problem.ops, [value.nbytes for value in problem.values]
    resident = set(problem.inputs)
    forward = tuple(range(n_initial, n_initial + n))
    turn = tuple(range(n_initial + n, n_initial + n + n_turn))
    backward = tuple(range(len(ops) - 1, len(ops) - 1 - n, -1))
    if any(len(ops[k].outputs) != 1 for k in (*range(n_initial), *forward, *backward)):
        return None
    # states[i] is x_i, None for an initial state that is a problem input.
    made = {ops[k].outputs[0]: k for k in range(n_initial)}
    start = [x for x in made if x in ops[forward[0]].inputs]
    if len(start) > 1 or any(set(ops[k].inputs) - resident for k in made.values()):
        return None
    states: list[int | None] = [start[0] if start else None]
    # What else is made before the first step (the seed of the reversal) can wait for the turn.
    initial = tuple(made[x] for x in start)
    turn = (*(k for x, k in made.items() if x not in start), *turn)
    states += [ops[k].outputs[0] for k in forward]
    gradients = [ops[k].outputs[0] for k in backward]
    unit = nbytes[gradients[-1]]
    sizes = {nbytes[x] for x in states if x is not None} | {nbytes[g] for g in gradients}
    if unit <= 0 or sizes != {unit}:
        return None
    uniform = {(ops[k].cost, ops[k].workspace_bytes) for k in forward}
    if len(uniform) != 1 or len({ops[k].workspace_bytes for k in backward}) != 1:
        return None
    if not all(ops[k].recomputable for k in forward[:-1]):
        return None

    def reads(op: int) -> set[int | None]:
        return {value for value in ops[op].inputs if value not in resident}

    if any(reads(k) != {states[i]} - {None} for i, k in enumerate(forward)):
        return None
    seeds: set[int | None] = {value for k in turn for value in ops[k].outputs}
    if any(reads(k) - seeds - {states[n]} for k in turn):
        return None
    if not set(problem.outputs) <= {gradients[0], states[n], *seeds}:
        return None
    last = backward[n - 1]
    if reads(last) - seeds - {states[n - 1], states[n]}:
        return None
    if states[n - 1] is not None and states[n - 1] not in reads(last):
        return None
    below = backward[: n - 1]
    reads_next = any(states[i + 1] in reads(k) for i, k in enumerate(below))
    for i, k in enumerate(below):
        expected = {states[i], gradients[i + 1]} - {None}
        if reads_next:
            expected.add(states[i + 1])
        if reads(k) != expected:
            return None
    return UniformChain(initial, forward, turn, backward, unit)


def _beta(s: int, t: int) -> int:
    return math.comb(s + t, s) if t >= 0 else 0


def _repetition(n: int, slots: int) -> int:
    """The least t with beta(slots, t) >= n."""
    if slots == 1:
        return n - 1
    t, reached = 0, 1
    while reached < n:
        t += 1
        reached = reached * (slots + t) // t
    return t


def optimal_split(n: int, slots: int) -> int:
    """An optimal first stretch: the longest one (fewest stored states at the far end)."""
    t = _repetition(n, slots)
    return max(1, min(_beta(slots, t - 1), n - _beta(slots - 1, t - 1), n - 1))


def moves(n: int, slots: int) -> Iterator[tuple[int, int]]:
    """Revolve's recursion: (low, high) runs these steps from a kept state, (i, i) reverses step i.

    The states that are kept are those that the moves start from, `slots` at once with the first.
    """
    stack = [(0, n, slots)]
    while stack:
        low, high, free = stack.pop()
        if free == 1 or high - low == 1:
            for i in range(high - 1, low - 1, -1):
                if i > low:
                    yield low, i
                yield i, i
            continue
        middle = low + optimal_split(high - low, free)
        yield low, middle
        stack.append((low, middle, free))
        stack.append((middle, high, free - 1))


def _write(chain: UniformChain, slots: int, fused: int) -> list[int]:
    """The schedule; at the far end all fused steps forward, the turn, and back."""
    n = len(chain.forward) - fused + 1
    steps: list[int] = list(chain.initial)
    for low, high in moves(n, slots):
        if high > low:
            steps.extend(chain.forward[low:high])
        elif low == n - 1:
            steps.extend(chain.forward[low:])
            steps.extend(chain.turn)
            steps.extend(reversed(chain.backward[low:]))
        else:
            steps.append(chain.backward[low])
    return steps
