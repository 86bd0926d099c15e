"""Integer programming: the retention formulation solved by HiGHS (or CBC) through PuLP.

See `fxremat_solvers.retention` for the formulation and its papers. The program covers a class of
schedules (first runs in one fixed order, a bounded number of recomputations); `ilp_detail` says
which class was solved, what was proven for that class, and by which solver. The `lower_bound` of
the returned `Solution` is never that class's bound: it is `bounds.lower_bound`, which holds for
any schedule, and the status is OPTIMAL only where the cost meets it (to the solvers' tolerance,
`same_cost`) or the baseline fits.

Limits: about 200 ops with recomputation at most once in backward; the number of candidate
recomputations is capped, so larger graphs get shorter chains of recomputations (see
`IlpDetail.schedule_class`).
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import pulp as _pulp  # pyright: ignore[reportMissingTypeStubs]

from fxremat_solvers.bounds.cost_bound import lower_bound
from fxremat_solvers.errors import SolverError
from fxremat_solvers.model.incumbent import same_cost
from fxremat_solvers.model.problem import Op, RematProblem
from fxremat_solvers.model.schedule import Schedule, Solution, Status
from fxremat_solvers.model.simulate import Simulation, baseline, simulate
from fxremat_solvers.reference.mincut import mincut
from fxremat_solvers.reference.retention import (
    Candidates,
    RetentionClass,
    RetentionModel,
    build,
    candidates,
    stages_of,
)

# PuLP is only partly typed.
pulp: Any = _pulp

_PAIR_CAP = 4000
"""Most (op, stage) pairs a program may have."""

_EARLY_CAP = 400
"""Most pairs for the fullest class, which also recomputes long before the first use."""


@dataclass(frozen=True)
class IlpDetail:
    """A solution and what the integer program proved.

    `class_lower_bound` bounds the schedules of `schedule_class` only; `class_optimal` says that
    the solver proved the returned cost minimal in that class (to a relative gap of 1e-5).
    `solver_status` is PuLP's `sol_status` in words.
    """

    solution: Solution
    schedule_class: str
    class_lower_bound: float
    class_optimal: bool
    solver_name: str
    solver_status: str
    n_columns: int
    n_rows: int


@dataclass(frozen=True)
class _Outcome:
    pairs: tuple[tuple[int, int], ...] | None
    bound: float
    optimal: bool
    infeasible: bool
    solver_name: str
    solver_status: str


def ilp(
    problem: RematProblem,
    budget_bytes: int,
    *,
    time_limit_s: float = 30.0,
    seed: int = 0,
    warm_start: Schedule | None = None,
    max_recomputations: int | None = None,
) -> Solution:
    """The best schedule the retention program finds within the time limit.

    `max_recomputations` bounds how often each op is recomputed; None starts from "once, in
    backward" and allows more as long as each program is solved to optimality in its share of the
    time (on small graphs any number of times, anywhere, at once). The first
    runs follow the order of `warm_start` (the baseline order without one), and the answer is
    never worse than it. One thread and a fixed seed: the result depends on the clock only where
    the time limit cuts the search off (status TIME_LIMIT).
    """
    return ilp_detail(
        problem,
        budget_bytes,
        time_limit_s=time_limit_s,
        seed=seed,
        warm_start=warm_start,
        max_recomputations=max_recomputations,
    ).solution


def ilp_detail(
    problem: RematProblem,
    budget_bytes: int,
    *,
    time_limit_s: float = 30.0,
    seed: int = 0,
    warm_start: Schedule | None = None,
    max_recomputations: int | None = None,
) -> IlpDetail:
    """As `ilp`, with what was proven and for which class of schedules."""
    began = time.monotonic()
    plain = baseline(problem)
    baseline_peak = simulate(problem, plain).peak_bytes
    if baseline_peak <= budget_bytes:
        cost = problem.baseline_cost
        solution = Solution(plain, cost, baseline_peak, cost, Status.OPTIMAL, "ilp")
        return IlpDetail(solution, "any schedule", cost, True, "none", "Optimal", 0, 0)
    if warm_start is None and len(problem.ops) > 20:
        # HiGHS alone may find nothing in time: start from the priced cuts' plan.
        guess = mincut(problem, budget_bytes, time_limit_s=time_limit_s / 4, with_bound=False)
        if guess.status != Status.INFEASIBLE:
            warm_start = guess.schedule
    order = _first_runs(warm_start or plain)
    if not _feeds_reruns(problem, order):
        order = plain.ops
    ordered = _permuted(problem, order)
    rank = {op: k for k, op in enumerate(order)}
    general = lower_bound(problem, budget_bytes, deadline=began + time_limit_s / 2)
    slack = same_cost(problem)
    options = [plain] if warm_start is None else [plain, warm_start]
    best, replay = _best_of(problem, options, budget_bytes)
    ladder = _classes(ordered, max_recomputations)
    unproven = True
    proven: tuple[RetentionClass, RetentionModel, _Outcome] | None = None
    for rung, (allowed, plain_pairs) in enumerate(ladder):
        in_order = _first_runs(best) == order
        steps = (rank[op] for op in best) if in_order else ()
        known = stages_of(steps, len(order) + 1)
        per_op = _with_pairs(plain_pairs, known)
        limit = _per_op_limit(allowed.max_recomputations, known)
        floor = general - problem.baseline_cost if math.isfinite(general) else 0.0
        model = build(ordered, budget_bytes, per_op, limit, least_extra=floor)
        remaining = time_limit_s - (time.monotonic() - began)
        share = remaining if rung == len(ladder) - 1 else remaining / 2
        outcome = _solve(model, max(share, 0.1), seed, known)
        before = best
        if outcome.pairs is not None:
            options = [best, _schedule(order, outcome.pairs)]
            best, replay = _best_of(problem, options, budget_bytes)
        unproven = not outcome.optimal and not outcome.infeasible
        if proven is None or not unproven or best != before:
            proven = allowed, model, outcome
        if unproven or (replay.peak_bytes <= budget_bytes and replay.cost <= general + slack):
            break
    assert proven is not None
    allowed, model, outcome = proven
    fits = replay.peak_bytes <= budget_bytes
    if not fits:
        remaining = time_limit_s - (time.monotonic() - began)
        lowest = build(ordered, budget_bytes, ladder[-1][1], ladder[-1][0].max_recomputations, True)
        found = _solve(lowest, max(remaining, 0.1), seed, set())
        if found.pairs is not None:
            options = [best, _schedule(order, found.pairs)]
            best, replay = _best_of(problem, options, budget_bytes)
    cost = replay.cost
    if not fits:
        status = Status.INFEASIBLE
    elif cost <= general + slack:
        status = Status.OPTIMAL
    else:
        status = Status.TIME_LIMIT if unproven else Status.FEASIBLE
    bound = min(general, cost) if fits else general
    return IlpDetail(
        solution=Solution(best, cost, replay.peak_bytes, bound, status, "ilp"),
        schedule_class=str(allowed),
        class_lower_bound=problem.baseline_cost + outcome.bound,
        class_optimal=outcome.optimal and fits,
        solver_name=outcome.solver_name,
        solver_status=outcome.solver_status,
        n_columns=model.n_columns,
        n_rows=len(model.rows),
    )


def _best_of(
    problem: RematProblem, options: list[Schedule], budget_bytes: int
) -> tuple[Schedule, Simulation]:
    """The cheapest schedule that fits; the one with the smallest peak where none does."""
    replays = [simulate(problem, option) for option in options]
    fits = [k for k, r in enumerate(replays) if r.peak_bytes <= budget_bytes]
    if fits:
        best = min(fits, key=lambda k: (replays[k].cost, replays[k].peak_bytes, k))
    else:
        best = min(range(len(options)), key=lambda k: (replays[k].peak_bytes, k))
    return options[best], replays[best]


def _first_runs(schedule: Schedule) -> tuple[int, ...]:
    return tuple(dict.fromkeys(schedule))


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


def _classes(
    problem: RematProblem, max_recomputations: int | None
) -> list[tuple[RetentionClass, Candidates]]:
    """Classes of schedules to solve one after the other, each from the best plan so far.

    The fullest class alone where it is small; else chains of recomputations of growing length, as
    long as the program stays under the cap (and the shortest in any case).
    """
    most = max_recomputations
    full = RetentionClass(None, True, False, most)
    per_op = candidates(problem, full, _EARLY_CAP)
    if per_op is not None:
        return [(full, per_op)]
    backward = problem.first_backward_op is not None
    once = 1 if most is None else most
    twice = 2 if most is None else most
    rungs = [
        RetentionClass(2, False, backward, once),
        RetentionClass(4, False, backward, twice),
        RetentionClass(8, False, backward, twice),
        RetentionClass(None, False, backward, twice),
        RetentionClass(None, False, False, most),
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
    counts: dict[int, int] = {}
    for op, _ in pairs:
        counts[op] = counts.get(op, 0) + 1
    return max(limit, *counts.values())


def _schedule(order: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> Schedule:
    extra: list[list[int]] = [[] for _ in range(len(order) + 1)]
    for op, stage in pairs:
        extra[stage].append(op)
    steps: list[int] = []
    for stage, again in enumerate(extra):
        steps.extend(order[op] for op in sorted(again))
        steps.extend(order[stage : stage + 1])
    return Schedule(tuple(steps))


def _solve(
    model: RetentionModel, time_limit_s: float, seed: int, known: set[tuple[int, int]]
) -> _Outcome:
    integer = set(model.recompute.values())
    # PuLP 4 deprecates building variables this way in favour of the problem's own factory; both
    # releases still accept it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lp: Any = pulp.LpProblem("retention", pulp.LpMinimize)
        columns: list[Any] = [
            _variable(lp, f"c{k}", None if math.isinf(upper) else upper, k in integer)
            for k, upper in enumerate(model.upper)
        ]
        lp += pulp.lpSum(weight * columns[k] for k, weight in model.objective.items())
        for coefficients, low, high in model.rows:
            body: Any = pulp.lpSum(f * columns[k] for k, f in coefficients.items())
            if low == high:
                lp += body == low
                continue
            if low > -math.inf:
                lp += body >= low
            if high < math.inf:
                lp += body <= high
        start = {model.recompute[pair]: 1.0 for pair in known if pair in model.recompute}
        name, solver = _make_solver(time_limit_s, seed, start, sorted(integer))
        if start:
            for k in integer:
                columns[k].setInitialValue(start.get(k, 0.0))
        try:
            lp.solve(solver)
        except pulp.PulpSolverError as error:
            return _Outcome(None, 0.0, False, False, name, f"failed: {error}")
    return _read(lp, columns, model, name)


def _variable(lp: Any, name: str, upper: float | None, integer: bool) -> Any:
    category = pulp.LpInteger if integer else pulp.LpContinuous
    factory: Any = getattr(lp, "add_variable", None)
    if factory is not None:
        return factory(name, 0, upper, category)
    return pulp.LpVariable(name, 0, upper, category)


def _make_solver(
    time_limit_s: float, seed: int, start: dict[int, float], integer: list[int]
) -> tuple[str, Any]:
    """HiGHS through highspy where it is there, else CBC, else whatever PuLP finds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        available: list[str] = pulp.listSolvers(onlyAvailable=True)
    if "HiGHS" in available:
        return "HiGHS", _highs(time_limit_s, seed, start, integer)
    for name in ("PULP_CBC_CMD", "COIN_CMD"):
        if name in available:
            options = [f"randomSeed {seed}", f"randomCbcSeed {seed}"]
            return name, pulp.getSolver(
                name,
                msg=False,
                timeLimit=time_limit_s,
                threads=1,
                gapRel=1e-6,
                options=options,
                warmStart=bool(start),
            )
    if not available:
        raise SolverError(
            "PuLP finds no MILP solver: install highspy (pip install highspy), "
            "or use a solver that needs none (mincut, greedy)"
        )
    return available[0], pulp.getSolver(available[0], msg=False, timeLimit=time_limit_s)


def _highs(time_limit_s: float, seed: int, start: dict[int, float], integer: list[int]) -> Any:
    base: Any = pulp.HiGHS

    class WarmHiGHS(base):
        """PuLP's HiGHS with a starting point: the integer columns, completed by HiGHS."""

        def callSolver(self, lp: Any) -> None:
            if start:
                index = {str(v.name): k for k, v in enumerate(lp.variables())}
                where = [index[f"c{k}"] for k in integer if f"c{k}" in index]
                what = [start.get(k, 0.0) for k in integer if f"c{k}" in index]
                lp.solverModel.setSolution(len(where), where, what)
            lp.solverModel.run()

    return WarmHiGHS(
        msg=False,
        timeLimit=time_limit_s,
        threads=1,
        gapRel=1e-6,
        gapAbs=0.0,
        random_seed=seed % 2**31,
    )


def _read(lp: Any, columns: list[Any], model: RetentionModel, name: str) -> _Outcome:
    """Status from `sol_status` and the solver's own bound: `status` alone says Optimal after a
    time-out."""
    words = {
        pulp.LpSolutionOptimal: "Optimal",
        pulp.LpSolutionIntegerFeasible: "Integer feasible",
        pulp.LpSolutionInfeasible: "Infeasible",
        pulp.LpSolutionUnbounded: "Unbounded",
        pulp.LpSolutionNoSolutionFound: "No solution found",
    }
    state = lp.sol_status
    solved = state in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    pairs: tuple[tuple[int, int], ...] | None = None
    if solved:
        chosen: list[tuple[int, int]] = []
        for pair, k in model.recompute.items():
            value = columns[k].value()
            if value is None or not math.isfinite(value):
                solved = False
                break
            if value > 0.5:
                chosen.append(pair)
        pairs = tuple(chosen) if solved else None
    optimal = state == pulp.LpSolutionOptimal and solved
    bound = 0.0
    highs: Any = getattr(lp, "solverModel", None)
    if highs is not None and hasattr(highs, "getInfo"):
        info = highs.getInfo()
        if math.isfinite(info.mip_dual_bound):
            bound = max(0.0, float(info.mip_dual_bound)) * model.cost_per_unit
        optimal = optimal and float(info.mip_gap) <= 1e-5
    elif optimal:
        bound = float(pulp.value(lp.objective) or 0.0) * model.cost_per_unit
    return _Outcome(
        pairs=pairs,
        bound=bound,
        optimal=optimal,
        infeasible=state == pulp.LpSolutionInfeasible,
        solver_name=name,
        solver_status=words.get(state, str(state)),
    )
