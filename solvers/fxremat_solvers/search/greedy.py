"""Lookahead eviction: walk the baseline order and, when memory runs out, drop what is cheapest.

The future uses of every value are known, so eviction follows Belady's rule (the farthest next use
goes first) weighed with what it costs to bring the value back and with its size, the priority of
DTR (Kirisame et al., "Dynamic Tensor Rematerialization", ICLR 2021) with the past replaced by the
future. A missing input is recomputed just before its use together with all of its missing
ancestors; a value may be dropped and recomputed any number of times.

Limits: the order of first computations is the baseline's, and decisions are never revised.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fxremat_solvers.model.incumbent import Candidate, candidate
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.search.parallel import side_by_side


@dataclass(frozen=True)
class Tuning:
    """Up to `all_rules` ops all rules are walked, which takes a second there.

    Up to `one_thread` ops walks take less time than threads to start.
    """

    all_rules: int = 6_000
    one_thread: int = 1_000


TUNING = Tuning()


@dataclass(frozen=True)
class GreedyRule:
    """Exponents of the eviction priority ``cost**c / (bytes**b * distance**d)``; lowest goes."""

    cost: float = 1.0
    nbytes: float = 1.0
    distance: float = 1.0


DEFAULT_RULE = GreedyRule()
# No rule is best everywhere: on 10 joint graphs at four budgets each of these won somewhere, the
# first was within 10 % of the best on most.
RULES = (
    DEFAULT_RULE,
    GreedyRule(distance=0.5),
    GreedyRule(cost=0.5),
    GreedyRule(cost=0.5, distance=0.5),
    GreedyRule(distance=0.0),
)
# Those for graphs on which all take too long.
_FEW_RULES = (DEFAULT_RULE, GreedyRule(distance=0.0))


def compile_walk() -> None:
    """Have the walk compiled, where it is: seconds, once per machine; after that a cache has it."""
    greedy_ops(RematProblem((), ()), 1)


def greedy_candidates(problem: RematProblem, budget_bytes: int) -> list[Candidate]:
    """The walks of all rules; on large graphs of two.

    A walk scans all that is held whenever room is made: its time grows with the square of the ops,
    about a second at 10,000.
    """
    rules = RULES if len(problem.ops) <= TUNING.all_rules else _FEW_RULES
    runs = [partial(greedy_ops, problem, budget_bytes, rule) for rule in rules]
    few = len(problem.ops) <= TUNING.one_thread
    walks = [run() for run in runs] if few else side_by_side(runs)
    return [candidate(problem, ops, "greedy") for ops in dict.fromkeys(walks)]


def greedy_ops(
    problem: RematProblem, budget_bytes: int, rule: GreedyRule = DEFAULT_RULE
) -> tuple[int, ...]:
    """Op indices of a schedule that runs everything, within the budget where the rule can.

    Where nothing is left to evict the walk goes on above the budget, so the answer always
    executes; its peak has to be asked of the oracle. A walk that recomputes without end (far
    below what the rule can reach) is given up: the answer is the baseline.
    """
    # Imported here: numba, which compiles the walk, takes longer to import than most walks take.
    from fxremat_solvers.search.greedy_walk import run, walk_of

    walk = walk_of(problem, (rule.cost, rule.nbytes, rule.distance))
    mean = problem.baseline_cost / max(1, len(problem.ops))
    # Free ops are not quite free to the rule: recomputing them still costs memory.
    if not run(walk, budget_bytes, mean * 1e-6 if mean > 0 else 1.0):
        return tuple(range(len(problem.ops)))
    return tuple(int(op) for op in walk.steps[: walk.totals[0]])
