"""The table of the dynamic program over states and tapes, filled by compiled code."""

from __future__ import annotations

from typing import Any

from fxremat_solvers.search import kernel_jit

_NEVER = 1 << 60


@kernel_jit.compiled
def fill(
    costs: Any, choices: Any, after_state: Any, after_tape: Any, steps: int, misses: int
) -> None:
    """``costs[row, k]``: the fewest evaluations that reverse k steps with a row's room.

    Rows are in the order of their room. `after_state` and `after_tape` give the row that is left
    when a state or a tape more is kept, -1 where there is no room for one. ``choices[row, k]`` is
    the length of the first stretch, or 0 where the first step's tape is kept. The search for a
    stretch ends after so many `misses` in a row; with as many as steps it is exhaustive.
    """
    for row in range(costs.shape[0]):
        state, tape = after_state[row], after_tape[row]
        costs[row, 1] = 1
        choices[row, 1] = 1
        begin = 1
        for k in range(2, steps + 1):
            best, at = _NEVER, 0
            if state >= 0:
                # The best stretch moves little from one length to the next.
                begin = 1 if misses >= steps else max(1, begin - 3)
                best, at, missed = begin + costs[state, k - begin] + costs[row, begin], begin, 0
                for j in range(begin + 1, k):
                    cost = j + costs[state, k - j] + costs[row, j]
                    if cost < best:
                        best, at, missed = cost, j, 0
                    else:
                        missed += 1
                        if missed >= misses:
                            break
                begin = at
            if tape >= 0 and 1 + costs[tape, k - 1] <= best:
                best, at = 1 + costs[tape, k - 1], 0
            costs[row, k] = best
            choices[row, k] = at
