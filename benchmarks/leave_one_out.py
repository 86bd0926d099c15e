"""What a preset loses without one of its parts: the table that a part has to stand in.

`python -m benchmarks.ablation leave-one-out` and `left-out` are its command line. A strategy runs
as it is, once without each of its steps and of the parts of those that have some, and once with
each of the simpler forms below. Where a step did nothing in the whole strategy, the run without it
is the same run, as work is counted in edits and not in seconds, and isn't made again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.cuda.machine import commit
from benchmarks.joint_graphs import problem_of
from fxremat_solvers import (
    PRESETS,
    RematProblem,
    Solution,
    SolveOptions,
    Status,
    baseline,
    floor,
    simulate,
)
from fxremat_solvers.portfolio import portfolio
from fxremat_solvers.search.greedy import compile_walk
from fxremat_solvers.search.kernel import kernel
from fxremat_solvers.search.state import Step
from fxremat_solvers.search.steps import Anneal, ColdWaves, Restarted, Together

OUT = Path("bench-output/leave_one_out")
WHOLE = "nothing"
BEGIN, END = "<!-- leave one out: begin -->", "<!-- leave one out: end -->"
Strategy = tuple[Step, ...]


def figures(
    problem: RematProblem, budget_bytes: int, solution: Solution, own: bool = True
) -> dict[str, Any]:
    """A solution, replayed, in shares of the baseline's cost."""
    simulation = simulate(problem, solution.schedule)
    fits = simulation.peak_bytes <= budget_bytes and own
    base = problem.baseline_cost
    known = solution.status is not Status.INFEASIBLE
    return {
        "status": str(solution.status),
        "fits": fits,
        "peak_bytes": simulation.peak_bytes,
        "extra": simulation.cost / base - 1 if fits else None,
        "bound": solution.lower_bound / base - 1 if known else None,
        "found_by": solution.solver,
    }


@dataclass(frozen=True)
class Variant:
    """A strategy without a part of one of its steps, for graphs of `above` to `below` ops."""

    strategy: Strategy
    step: str = ""
    above: int = 0
    below: int = 1 << 40

    def differs(self, n_ops: int, worked: Sequence[str]) -> bool:
        """Whether it may do other things than the whole, of which these steps `worked`."""
        return self.step in worked and self.above < n_ops <= self.below


def variants(strategy: Strategy) -> dict[str, Variant]:
    """The strategy as it is, and all that leave something out, by its name."""
    found = {WHOLE: Variant(strategy)}
    for k, step in enumerate(strategy):
        for name, part, instead in _without(step):
            same = sum(other.partition(" #")[0] == name for other in found)
            unique = f"{name} #{same + 1}" if same else name
            sizes = getattr(part, "above", 0), getattr(part, "below", 1 << 40)
            without = (*strategy[:k], *instead, *strategy[k + 1 :])
            found[unique] = Variant(without, step.name, *sizes)
    return found


def _without(step: Step) -> Iterator[tuple[str, Any, Strategy]]:
    """What is left out, the part that it is of, and what stands instead of the step."""
    if isinstance(step, Together):
        for k, part in enumerate(step.bound):
            side = step.bound[:k] + step.bound[k + 1 :]
            yield part.name, part, (replace(step, bound=side),) if side else step.plan
        for k, whole in enumerate(step.plan):
            for name, part, instead in _without(whole):
                side = (*step.plan[:k], *instead, *step.plan[k + 1 :])
                yield name, part, (replace(step, plan=side),) if side else step.bound
        return
    yield step.name, step, ()
    if isinstance(step, Restarted):
        for k, kind in enumerate(step.batches):
            rest = step.batches[:k] + step.batches[k + 1 :]
            yield f"restarts, kind {k + 1}", kind, (replace(step, batches=rest),)
    elif isinstance(step, ColdWaves):
        yield "half of the waves", step, (replace(step, waves=(step.waves + 1) // 2),)
        if len(step.recipes) > 4:
            yield "half of the cold recipes", step, (replace(step, recipes=step.recipes[:4]),)
    elif isinstance(step, Anneal) and step.most > 1:
        if step.patience > 1:
            yield "patience", step, (replace(step, patience=1),)
        if step.spare:
            yield "spare round", step, (replace(step, spare=False),)


def run(
    names: Sequence[str],
    budgets: Sequence[str],
    preset: str,
    without: Sequence[str],
    floors: Path,
    folder: Path,
) -> None:
    """Run each variant on each graph at each budget; `floors` are rows that say the floors.

    `without` names what is left out, all in turn where it is empty.
    """
    known = {row["fixture"]: row["floor_bytes"] for row in records.load(floors).values()}
    found = variants(PRESETS[preset])
    for budget, name in product(budgets, names):
        problem = problem_of(name)
        peak = simulate(problem, baseline(problem)).peak_bytes
        lowest = known.get(name) or floor(problem).peak_bytes
        budget_bytes = lowest if budget == "floor" else int(float(budget) * peak)
        if budget_bytes < lowest:
            continue
        compile_walk()  # once a machine, and no part of the seconds
        kernel(problem)
        about = {"fixture": name, "ops": len(problem.ops), "budget": budget}
        about |= {"budget_bytes": budget_bytes, "preset": preset}
        whole: dict[str, Any] = {}
        for left_out in (WHOLE, *without) if without else found:
            variant = found[left_out]
            key = f"{name}/{budget}/{preset}/{left_out}"
            row = records.load(folder).get(key)
            if row is None:
                runs = not whole or variant.differs(len(problem.ops), whole["worked"])
                strategy = variant.strategy
                row = _measured(problem, budget_bytes, preset, strategy) if runs else whole
                row = {**row, "key": key, **about, "left_out": left_out, "same": not runs}
                row |= records.environment(1) | {"commit": commit()}
                records.append(folder, row)
            if left_out == WHOLE:
                whole = dict(row)


def _measured(
    problem: RematProblem, budget_bytes: int, preset: str, strategy: Strategy
) -> dict[str, Any]:
    began = time.process_time()
    traced = portfolio(
        problem, budget_bytes, SolveOptions(preset=preset, time_limit_s=300.0), strategy
    )
    seconds = time.process_time() - began
    found = figures(problem, budget_bytes, traced.solution)
    worked = sorted({report.step for report in traced.reports})
    return {**found, "seconds": round(seconds, 3), "worked": worked}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a part: what is lost without it, in points of the baseline's cost."""
    lines = [
        "| preset | without | plans | of them run | lost, mean | lost, most | gained, most | "
        "bound lost, mean | no fit | seconds saved |",
        "|---" * 10 + "|",
    ]
    cells = {(r["preset"], r["left_out"], r["fixture"], r["budget"]): r for r in rows}
    for preset, left_out in dict.fromkeys((r["preset"], r["left_out"]) for r in rows):
        if left_out == WHOLE:
            continue
        pairs = [
            (row, cells[preset, WHOLE, row["fixture"], row["budget"]])
            for row in rows
            if (row["preset"], row["left_out"]) == (preset, left_out)
            and (preset, WHOLE, row["fixture"], row["budget"]) in cells
        ]
        both = [(row, whole) for row, whole in pairs if row["fits"] and whole["fits"]]
        lost = [100 * (row["extra"] - whole["extra"]) for row, whole in both] or [0.0]
        bound = [100 * (whole["bound"] - row["bound"]) for row, whole in both] or [0.0]
        unfit = sum(whole["fits"] and not row["fits"] for row, whole in pairs)
        before, after = (sum(pair[k]["seconds"] for pair in pairs) for k in (1, 0))
        saved = f"{100 * (1 - after / before):.0f} %" if before else ""
        ran = sum(not row["same"] for row, _ in pairs)
        lines.append(
            f"| {preset} | {left_out.replace('|', 'beside')} | {len(pairs)} | {ran} | "
            f"{statistics.mean(lost):.2f} | {max(lost):.2f} | {max(0.0, -min(lost)):.2f} | "
            f"{statistics.mean(bound):.2f} | {unfit} | {saved} |"
        )
    return "\n".join(lines)
