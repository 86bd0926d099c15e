"""Integer programming: the retention formulation solved by HiGHS, or by CBC through PuLP.

See `fxremat_solvers.reference.retention` for the formulation and its papers. The program covers
a class of schedules (first runs in one fixed order, a bounded number of recomputations);
`IlpDetail` says which class was solved and what was proven for it. The `lower_bound` of the
returned `Solution` is never that class's bound: it is that of `cost_bound.proof`, which holds for
any schedule, and the status is OPTIMAL only where the cost meets it (to the solvers' tolerance,
`same_cost`) or the baseline fits.

Limits: about 200 ops with recomputation at most once in backward; the number of candidate
recomputations is capped, so larger graphs get shorter chains of recomputations (see
`IlpDetail.schedule_class`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass

from fxremat_solvers.bounds.cost_bound import proof
from fxremat_solvers.errors import ArgumentError
from fxremat_solvers.model.incumbent import best, candidate, same_cost, solution
from fxremat_solvers.model.problem import Op, RematProblem
from fxremat_solvers.model.schedule import Schedule, Solution, Status
from fxremat_solvers.model.simulate import baseline
from fxremat_solvers.programs import highs
from fxremat_solvers.reference.mincut import mincut
from fxremat_solvers.reference.retention import (
    Candidates,
    RetentionClass,
    RetentionModel,
    build,
    candidates,
    stages_of,
)

_ENGINES = ("HiGHS", "CBC")

_GAP = 1e-6

_STEPS = 1 << 40
"""Of HiGHS: here the time limit ends it."""

_PAIR_CAP = 4000
"""Most (op, stage) pairs a program may have."""

_EARLY_CAP = 400
"""Most pairs for the fullest class, which also recomputes long before the first use."""


@dataclass(frozen=True)
class IlpDetail:
    """A solution and what the integer program proved.

    `class_lower_bound` bounds the schedules of `schedule_class` only; `class_optimal` says that
    the solver proved the returned cost minimal in that class (to a relative gap of 1e-6).
    """

    solution: Solution
    schedule_class: str
    class_lower_bound: float
    class_optimal: bool


@dataclass(frozen=True)
class _Outcome:
    pairs: tuple[tuple[int, int], ...] | None
    bound: float
    optimal: bool
    infeasible: bool


def ilp(
    problem: RematProblem,
    budget_bytes: int,
    *,
    time_limit_s: float = 30.0,
    seed: int = 0,
    warm_start: Schedule | None = None,
    engine: str = "HiGHS",
) -> IlpDetail:
    """The best schedule the retention program finds within the time limit, and what was proven.

    It begins with "once, in backward" and allows more as long as each program is solved to
    optimality in its share of the time (on small graphs any number of times, anywhere, at once).
    The first runs follow the order of `warm_start` (the baseline order without one), and the answer
    is never worse than it. One thread and a fixed seed: the result depends on the clock only where
    the time limit cuts the search off (status TIME_LIMIT). Raises `ArgumentError` for an `engine`
    that is neither "HiGHS" nor "CBC".
    """
    if engine not in _ENGINES:
        raise ArgumentError(f"engine is {engine!r}: choose one of {', '.join(_ENGINES)}")
    began = time.monotonic()
    plain = candidate(problem, baseline(problem).ops, "ilp")
    if plain.peak_bytes <= budget_bytes:
        return IlpDetail(solution(problem, plain, budget_bytes), "any schedule", plain.cost, True)
    if warm_start is None and len(problem.ops) > 20:
        # HiGHS alone may find nothing in time: start from the priced cuts' plan.
        guess = mincut(problem, budget_bytes, time_limit_s=time_limit_s / 4, with_bound=False)
        if guess.status != Status.INFEASIBLE:
            warm_start = guess.schedule
    order = _first_runs((warm_start or Schedule(plain.ops)).ops)
    if not _feeds_reruns(problem, order):
        order = plain.ops
    ordered = _permuted(problem, order)
    rank = {op: k for k, op in enumerate(order)}
    general = proof(problem, budget_bytes, deadline=began + time_limit_s / 2).bound
    found = plain
    if warm_start is not None:
        found = best([plain, candidate(problem, warm_start.ops, "ilp")], budget_bytes)
    ladder = _classes(ordered)
    unproven = True
    proven: tuple[RetentionClass, _Outcome] | None = None
    for rung, (allowed, plain_pairs) in enumerate(ladder):
        in_order = _first_runs(found.ops) == order
        steps = (rank[op] for op in found.ops) if in_order else ()
        known = stages_of(steps, len(order) + 1)
        per_op = _with_pairs(plain_pairs, known)
        limit = _per_op_limit(allowed.max_recomputations, known)
        floor = general - problem.baseline_cost if math.isfinite(general) else 0.0
        model = build(ordered, budget_bytes, per_op, limit, least_extra=floor)
        remaining = time_limit_s - (time.monotonic() - began)
        share = remaining if rung == len(ladder) - 1 else remaining / 2
        outcome = _solve(model, engine, max(share, 0.1), seed, known)
        before = found
        if outcome.pairs is not None:
            led = candidate(problem, _schedule(order, outcome.pairs), "ilp")
            found = best([found, led], budget_bytes)
        unproven = not outcome.optimal and not outcome.infeasible
        if proven is None or not unproven or found != before:
            proven = allowed, outcome
        fits = found.peak_bytes <= budget_bytes
        if unproven or (fits and found.cost <= general + same_cost(problem)):
            break
    assert proven is not None
    allowed, outcome = proven
    return IlpDetail(
        solution(problem, found, budget_bytes, lower_bound=general, cut_off=unproven),
        schedule_class=str(allowed),
        class_lower_bound=problem.baseline_cost + outcome.bound,
        class_optimal=outcome.optimal and found.peak_bytes <= budget_bytes,
    )


def _first_runs(ops: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(ops))


def _feeds_reruns(problem: RematProblem, order: tuple[int, ...]) -> bool:
    """Whether what a rerun reads is there once its op has run, where first runs are in order."""
    place = {op: k for k, op in enumerate(order)}
    return all(
        problem.producer[v] < 0 or place[problem.producer[v]] <= place[k]
        for k in problem.differing
        for v in problem.reruns[k].inputs
    )


def _permuted(problem: RematProblem, order: tuple[int, ...]) -> RematProblem:
    """The same problem with its ops in another executable order, and an op that reads the outputs.

    The last op makes the end of the schedule a stage: outputs too may be dropped and recomputed.
    """
    first = problem.first_backward_op
    # The backward part starts where the first backward op of the old order stands.
    moved = None if first is None or first >= len(order) else order.index(first)
    return RematProblem(
        ops=(
            *(problem.ops[op] for op in order),
            Op("end", problem.outputs, (), 0.0),
        ),
        values=problem.values,
        inputs=problem.inputs,
        outputs=problem.outputs,
        first_backward_op=moved,
    )


def _classes(problem: RematProblem) -> list[tuple[RetentionClass, Candidates]]:
    """Classes of schedules to solve one after the other, each from the best plan so far.

    The fullest class alone where it is small; else chains of recomputations of growing length, as
    long as the program stays under the cap (and the shortest in any case).
    """
    full = RetentionClass(None, early=True, backward_only=False, max_recomputations=None)
    per_op = candidates(problem, full, _EARLY_CAP)
    if per_op is not None:
        return [(full, per_op)]
    backward = problem.first_backward_op is not None
    rungs = [
        RetentionClass(2, False, backward, 1),
        RetentionClass(4, False, backward, 2),
        RetentionClass(8, False, backward, 2),
        RetentionClass(None, False, backward, 2),
        RetentionClass(None, False, False, None),
    ]
    ladder: list[tuple[RetentionClass, Candidates]] = []
    for allowed in rungs:
        per_op = candidates(problem, allowed, _PAIR_CAP if ladder else 2**62)
        if per_op is None:
            break
        if not ladder or per_op != ladder[-1][1]:
            ladder.append((allowed, per_op))
    return ladder


def _with_pairs(per_op: Candidates, pairs: set[tuple[int, int]]) -> Candidates:
    extra: dict[int, set[int]] = {}
    for op, stage in pairs:
        extra.setdefault(op, set()).add(stage)
    return tuple(
        tuple(sorted({*stages, *extra[op]})) if op in extra else stages
        for op, stages in enumerate(per_op)
    )


def _per_op_limit(limit: int | None, pairs: set[tuple[int, int]]) -> int | None:
    """The class's limit, raised where the warm start needs more."""
    if limit is None or not pairs:
        return limit
    return max(limit, *Counter(op for op, _ in pairs).values())


def _schedule(order: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    extra: list[list[int]] = [[] for _ in range(len(order) + 1)]
    for op, stage in pairs:
        extra[stage].append(op)
    steps: list[int] = []
    for stage, again in enumerate(extra):
        steps.extend(order[op] for op in sorted(again))
        steps.extend(order[stage : stage + 1])
    return tuple(steps)


def _solve(
    model: RetentionModel, engine: str, time_limit_s: float, seed: int, known: set[tuple[int, int]]
) -> _Outcome:
    if engine == "CBC":
        # Imported here: PuLP takes longer to import than most problems take to solve.
        from fxremat_solvers.programs import by_pulp

        answer = by_pulp.minimise(model.program, time_limit_s, gap=_GAP, seed=seed)
    else:
        start = {k: float(pair in known) for pair, k in model.recompute.items()} if known else None
        answer = highs.minimise(
            model.program, _STEPS, time_limit_s, gap=_GAP, start=start, options=_options(seed)
        )
    chosen = None
    if answer.point is not None:
        point = answer.point
        chosen = tuple(pair for pair, k in model.recompute.items() if point[k] > 0.5)
    return _Outcome(
        pairs=chosen,
        bound=max(0.0, answer.bound) * model.cost_per_unit,
        optimal=answer.optimal,
        infeasible=answer.infeasible,
    )


def _options(seed: int) -> dict[str, bool | float | int]:
    """Here points count as much as bounds."""
    points = ("mip_heuristic_run_rins", "mip_heuristic_run_rens")
    return {
        **dict.fromkeys(points, True),
        "mip_abs_gap": 0.0,
        "random_seed": seed % 2**31,
        "threads": 1,
    }
