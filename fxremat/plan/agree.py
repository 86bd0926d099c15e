"""The same plan on every rank of a distributed run.

Ranks measure their ops themselves, so they find different plans for the same graph: as good, but
then one rank waits for another, and no run repeats another. So each rank puts what it found into
the store that the processes met in, under a key of the problem, and takes what was put there
first. Nobody waits and nothing is communicated by collectives: ranks may compile at different
times, or graphs that others never see.

The key has the ops, the sizes and the options, and no times. Where the first plan doesn't fit on
this rank, whose kernels need more workspace, or the store can't be reached, it keeps its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from fxremat import torch_hooks
from fxremat.lower.lowering import Lowering
from fxremat.plan.options import Options
from fxremat.plan.plan import Plan
from fxremat_solvers import RematProblem, Schedule, SolverError, simulate

_LOG = logging.getLogger("fxremat")


def agreed(key: Callable[[], str], mine: Any) -> Any:
    """What the first rank gave under a key, of what JSON can write; `mine` in a single process,
    where no key is made."""
    store = torch_hooks.shared_store()
    if store is None:
        return mine
    try:
        # It sets what isn't there yet, and returns what is there then. NumPy's integers are ints.
        text = json.dumps(mine, default=int)
        return json.loads(store.compare_set(f"fxremat/{key()}", "", text))
    except Exception as error:  # of the network, or a store that can't do this
        _LOG.warning(
            "the store of the distributed run can't be used (%s: %s): plans of different ranks "
            "may differ",
            type(error).__name__,
            error,
        )
        return mine


def agreed_plan(plan: Plan, origin: str, purpose: str = "plan") -> tuple[Plan, str]:
    """The plan that all ranks follow for this problem under this budget, and its origin."""
    found: list[Any] = agreed(lambda: plan_key(plan, purpose), [origin, plan.schedule.ops])
    schedule = Schedule(tuple(found[1]))
    if schedule == plan.schedule:
        return plan, str(found[0])
    other = _that_fits(plan, schedule)
    if other is None:
        say_it_differs()
        return plan, origin
    return other, str(found[0])


def agreed_schedule(lowering: Lowering, mine: Schedule, options: Options, purpose: str) -> Schedule:
    """The schedule that all ranks follow for this problem, for whatever budget."""
    found = agreed(lambda: problems_key(purpose, [lowering.problem], 0, options), mine.ops)
    schedule = Schedule(tuple(found))
    if schedule == mine:
        return mine
    try:
        simulate(lowering.problem, schedule)
    except SolverError:
        return mine
    return schedule


def plan_key(plan: Plan, purpose: str) -> str:
    """What ranks that make this plan have in common."""
    return problems_key(purpose, [plan.problem], plan.budget_bytes, plan.options)


def problems_key(
    purpose: str, problems: Sequence[RematProblem], budget_bytes: int, options: Options
) -> str:
    """What ranks that plan these problems together have in common: all but times."""
    structures = {id(problem): structure_of(problem) for problem in problems}
    calls = [structures[id(problem)] for problem in problems]
    choices = (options.solver, options.cost, options.time_limit_s, options.seed, options.preset)
    return _hash(purpose, calls, budget_bytes, choices)


def structure_of(problem: RematProblem) -> str:
    """What of a problem is the same in every process: the ops, the data flow, the sizes."""
    ops = [
        (op.name, op.inputs, op.outputs, [(again.inputs, again.outputs) for again in op.reruns])
        for op in problem.ops
    ]
    sizes = [(value.nbytes, value.lazy) for value in problem.values]
    return _hash(ops, sizes, problem.inputs, problem.outputs, problem.first_backward_op)


def say_it_differs() -> None:
    """Log that this rank doesn't follow the plan of the first one."""
    _LOG.warning(
        "the plan that another rank found for the same graph takes more than the budget on this "
        "rank, whose kernels or whose uncompiled code need more: it follows its own"
    )


def _that_fits(plan: Plan, schedule: Schedule) -> Plan | None:
    try:
        other = plan.with_schedule(schedule)
    except SolverError:
        return None
    return other if other.peak_bytes <= plan.budget_bytes else None


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
