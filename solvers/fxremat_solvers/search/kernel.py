"""The inner loop of local search: annealing over edits of a schedule, compiled by numba.

The files: `kernel_state` lays out the state, `kernel_price` prices edits and `kernel_apply` applies
them, `kernel_moves` makes random ones, `kernel_anneal` decides, `kernel_jit` says how all that is
compiled; here is what the rest of the package sees. Importing this file does not import numba,
asking for a kernel does: problems that need no search don't pay for it.

Why numba: the inner loop prices edits that touch a handful of values each, one after another,
so there is nothing for numpy to vectorise, and interpreted it is a thousand times too slow.
Measured on a joint graph of 472 ops at half its peak: 800,000 edits a second compiled (C: 850,000),
500 interpreted. Compiling takes 15 s of CPU time once per machine; loading what was compiled
takes 0.6 s a process, most of it the import of numba. The cache is numba's: beside this file, or
in the user's cache where that cannot be written.

Annealing runs in slices of some milliseconds; between them Python looks at the clock and gives
the state more room where it needs it. Neither changes the result.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.rows import rows_of
from fxremat_solvers.search.kernel_state import (
    State,
    arrays_of,
    best_of,
    enlarged,
    load,
    peak_of,
    scalars_of,
    set_budget,
)

_SLICE_S = 0.02  # of annealing between looks at the clock


@dataclass(frozen=True)
class Annealing:
    """How `anneal` searches: temperatures in units of cost, prices in cost per byte and step."""

    edits: int
    temperature: tuple[float, float]
    price: tuple[float, float]
    time_limit_s: float
    swap: float = 1.0
    lower_the_peak: bool = False


class Kernel:
    """The compiled search, for one problem."""

    def __init__(self, anneal: Callable[[State, int], None], problem: RematProblem) -> None:
        self._anneal = anneal
        self._arrays = arrays_of(problem)
        self._rows = rows_of(problem)

    def anneal(
        self, steps: Sequence[int], budget_bytes: int, run: Annealing, seed: int
    ) -> tuple[int, ...]:
        """The best schedule found from `steps`."""
        deadline = time.monotonic() + run.time_limit_s
        state = self.started(steps, budget_bytes, run, seed)
        done, size = 0, 128
        while done < run.edits and time.monotonic() < deadline:
            began = time.monotonic()
            done = min(done + size, run.edits)
            state = self.advanced(state, done)
            if time.monotonic() - began < _SLICE_S:
                size *= 2
        return self._rows.ops(best_of(state))

    def started(self, steps: Sequence[int], budget_bytes: int, run: Annealing, seed: int) -> State:
        """The state before the first edit."""
        room = 2 * len(steps) + 8 * len(self._arrays.ops) + 64
        state = load(self._arrays, self._rows.of(steps), budget_bytes, room)
        k = scalars_of(state)
        k.rng = np.uint64((seed * 0x2545F4914F6CDD1D + 88172645463325252) % 2**64)
        k.edits = run.edits
        k.temperature_start, k.temperature_end = run.temperature
        k.price_start, k.price_end = run.price
        k.swap = run.swap
        k.lower_the_peak = int(run.lower_the_peak)
        k.pressure = 1.0
        k.n_best = len(steps)
        k.best_cost, k.best_peak = k.cost, peak_of(state)
        k.best_fits = int(k.over <= 0 and not run.lower_the_peak)
        if run.lower_the_peak:
            set_budget(state, k.best_peak * 0.999 - 1)
        return state

    def advanced(self, state: State, edits: int) -> State:
        """The state after so many edits in all."""
        self._anneal(state, edits)
        while scalars_of(state).edits_done < edits:
            state = enlarged(state)
            self._anneal(state, edits)
        return state


def kernel(problem: RematProblem) -> Kernel:
    """The compiled kernel for `problem`."""
    return Kernel(_compiled(), problem)


@functools.cache
def _compiled() -> Callable[[State, int], None]:
    """The compiled search. Once per machine this takes seconds; after, it comes from a cache."""
    from fxremat_solvers.search.kernel_anneal import anneal

    anneal(load(arrays_of(RematProblem((), ())), (), 0.0, 0), 0)  # compiles it
    return anneal
