"""What becomes of one case: the same bits within every budget, or why not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import fxremat
from benchmarks.measure import same
from tests.operators.samples import SEED, Case, Step, make_step

# No failure of ours: what torch itself can't do, or does otherwise each time.
FINE = ("ok", "refused by torch", "fails in torch", "differs by itself")
# Of the step with nothing recomputed; where that can't be met, the smallest that can. Then that.
SHARE = 0.6


@dataclass(frozen=True)
class Outcome:
    """How one case went, at its last budget.

    `reference` says whose bits were met: eager's, or those of AOTAutograd's own graph where that
    differs from eager. `recomputed` counts the runs of operations beyond one of each.
    """

    name: str
    kind: str
    reason: str = ""
    reference: str = ""
    budget_bytes: int = 0
    planned_bytes: int = 0
    measured_bytes: int = 0
    recomputed: int = 0


@dataclass(frozen=True)
class _Left:
    """What one step leaves: results, gradients, inputs (some ops update them), random state."""

    results: tuple[Any, ...]
    gradients: tuple[torch.Tensor | None, ...]
    inputs: tuple[torch.Tensor, ...]
    rng_state: torch.Tensor

    def same(self, other: _Left) -> bool:
        mine, theirs = self._all(), other._all()
        return len(mine) == len(theirs) and all(map(_same, mine, theirs))

    def _all(self) -> tuple[Any, ...]:
        return (*self.results, *self.gradients, *self.inputs, self.rng_state)


def outcome_of(case: Case) -> Outcome:
    """Run one case at all budgets; the first that fails is told.

    The op's own bytes show where nothing is recomputed and the peak lies in the op. Under the other
    budgets what it keeps for its backward has to go, first some of it, then all that can.
    """
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome, _ = _under(case, make_step(case, held=False), 1.0)
        if outcome.kind != "ok":
            return outcome
        step = make_step(case, held=True)
        outcome, floor = _under(case, step, SHARE)
        if outcome.kind == "ok" and floor < outcome.budget_bytes:
            outcome, _ = _under(case, step, floor)
    return outcome


def _under(case: Case, step: Step, budget: float | int) -> tuple[Outcome, int]:
    """The outcome under a budget, or the floor where it is below that; and the floor."""
    try:
        eager = _left_by(step, step.call)
        if not eager.same(_left_by(step, step.call)):
            return Outcome(case.name, "differs by itself", "eager, from run to run"), 0
    except Exception as error:
        return Outcome(case.name, "fails in torch", f"eager: {_said(error)}"), 0
    try:
        call, left = _planned(step, budget)
    except Exception as error:
        return _blamed(case, step, error), 0
    report = fxremat.explain(call)
    reference = "eager"
    if not left.same(eager):
        aot = _aot(step)
        theirs, again = _left_by(step, aot), _left_by(step, aot)
        reference = "AOTAutograd" if left.same(theirs) else ""
        if not reference and not theirs.same(again):
            # So does torch.linalg.pinv of complex numbers, whose first run is wrong.
            reason = "AOTAutograd's own graph, from run to run"
            return Outcome(case.name, "differs by itself", reason), 0
    measured = _measured(step, call)
    kind = "ok"
    if not reference:
        kind = "wrong bits"
    elif not measured <= report.planned_peak_bytes <= report.budget_bytes:
        kind = "overrun"
    outcome = Outcome(
        case.name,
        kind,
        reference=reference,
        budget_bytes=report.budget_bytes,
        planned_bytes=report.planned_peak_bytes,
        measured_bytes=measured,
        recomputed=sum(row.runs for row in report.rows),
    )
    return outcome, report.planned_peak_bytes if budget == 1.0 else fxremat.floor(call)


def _planned(step: Step, budget: float | int) -> tuple[Callable[..., Any], _Left]:
    """A step under a budget, or its floor, and what its first run leaves.

    By FLOPs: nothing is timed, and bytes are the same. Whatever the plan, it must be right, so the
    quickest solver makes it, where that finds one.
    """

    def planned(budget: float | int, solver: str) -> tuple[Callable[..., Any], _Left]:
        options = {"cost": "flops", "preset": "brief", "solver": solver}
        # Some steps take a few bytes, which a bare int would be a slip for.
        cap = budget if isinstance(budget, float) else fxremat.Budget(nbytes=budget)
        call = fxremat.optimize(step.call, budget=cap, **options)
        return call, _left_by(step, call)

    try:
        return planned(budget, "greedy")
    except fxremat.BudgetInfeasible:
        pass
    try:
        return planned(budget, "auto")
    except fxremat.BudgetInfeasible as error:
        return planned(error.floor_bytes, "auto")


def _blamed(case: Case, step: Step, error: Exception) -> Outcome:
    """Whose fault an error is: torch's, where its own graph fails too."""
    reason = _said(error)
    inputs = step.inputs()
    try:
        torch.manual_seed(SEED)
        results = _aot(step)(*inputs)
    except Exception as theirs:
        return Outcome(case.name, "refused by torch", _said(theirs))
    try:
        results[0].backward()
    except Exception as theirs:
        return Outcome(case.name, "fails in torch", _said(theirs))
    kind = "refused" if isinstance(error, fxremat.FxrematError) else "error"
    return Outcome(case.name, kind, reason)


def _aot(step: Step) -> Callable[..., Any]:
    """AOTAutograd's own graph of a step, nothing recomputed."""
    backend = "aot_eager_default_partitioner"
    return torch.compile(step.call, backend=backend, fullgraph=True, dynamic=False)


def _left_by(step: Step, call: Callable[..., Any]) -> _Left:
    inputs = step.inputs()
    torch.manual_seed(SEED)
    results = call(*inputs)
    results[0].backward()
    return _Left(
        tuple(r.detach() if isinstance(r, torch.Tensor) else r for r in results),
        tuple(t.grad for t in inputs),
        tuple(t.detach() for t in inputs),
        torch.get_rng_state(),
    )


def _measured(step: Step, call: Callable[..., Any]) -> int:
    """The peak of a step that has run before, its gradients not there yet."""
    inputs = step.inputs()

    def run() -> None:
        results = call(*inputs)
        results[0].backward()

    run()
    for tensor in inputs:
        tensor.grad = None
    return fxremat.measure_peak(run).peak_bytes


def _same(first: Any, second: Any) -> bool:
    """Whether two results are the same bits: those of NaN equal themselves."""
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return type(first) is type(second) and first == second
    return same(first, second)


def _said(error: BaseException) -> str:
    """The first line of an error, with its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
