"""Where ops run beside a chain of ops, in every schedule: after which of them, and by which.

Each op of a *chain* depends on the one before, directly or not. Position j, from 1 on, is the
moment when its j-th op runs for the first time. What depends on that op runs after it, what it
depends on has run by then.
"""

from __future__ import annotations

from collections.abc import Sequence

from fxremat_solvers.model.problem import RematProblem


def last_before(problem: RematProblem, chain: Sequence[int]) -> list[int]:
    """For each op the last position that it always runs after; 0 where there is none."""
    place, producer = _place(chain), problem.producer
    last: list[int] = []
    for op in problem.ops:
        found = 0
        for value in op.inputs:
            maker = producer[value]
            if maker >= 0:
                found = max(found, place.get(maker, last[maker]))
        last.append(found)
    return last


def first_after(problem: RematProblem, chain: Sequence[int]) -> list[int]:
    """For each op the first position that it always runs before; past the end where none is."""
    place, consumers = _place(chain), problem.consumers
    first = [len(chain) + 1] * len(problem.ops)
    for k in range(len(problem.ops) - 1, -1, -1):
        for value in problem.ops[k].outputs:
            for reader in consumers[value]:
                first[k] = min(first[k], place.get(reader, first[reader]))
    return first


def _place(chain: Sequence[int]) -> dict[int, int]:
    return {op: j for j, op in enumerate(chain, 1)}
