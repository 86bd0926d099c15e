"""What a better plan is worth in measured steps: the portfolio's against single solvers'.

python -m benchmarks.better_plans run [--models ...] [--budgets ...] [--out DIR]
python -m benchmarks.better_plans report [--out DIR] [--into docs/benchmarks.md]

At each budget a model is compiled with every solver; the step of `auto`'s plan and that of a single
solver's run in alternating rounds in one process, on one thread, and so do `auto`'s and the eager
step. Beside the median of the ratios stands what the plans' own costs say. Each model runs in a
process of its own. `run` goes on from the rows that it finds in DIR; the kept ones are in
`benchmarks/results/better_plans`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import records, zoo
from benchmarks.marks import show
from benchmarks.measure import Step, time_ratio
from benchmarks.methods.base import Task, Unavailable
from benchmarks.methods.fxremat import method
from benchmarks.own_process import print_row, rows_of

OUT = Path("bench-output/better_plans")
MODELS = (
    *("gpt2-eager", "bert-eager", "vit-eager", "llama-eager", "t5", "resnet50", "unet"),
    *("mamba", "two-tower", "lstm64"),
)
BUDGETS = (0.5, 0.3)
SINGLE = ("greedy", "mincut")
_ROUNDS = 12
_LIMIT_S = 45.0
BEGIN, END = "<!-- better plans: begin -->", "<!-- better plans: end -->"


@dataclass(frozen=True)
class Planned:
    """A compiled step, what its plan takes beside the untouched step, and what planning took."""

    step: Step
    predicted: float
    planning_s: float


def planned(model: str, size: str, solver: str, budget: float) -> Planned | None:
    """The model with this solver's plan; None where the solver finds none within the budget."""
    workload = zoo.get(model).make(size, seed=0)
    task = Task(workload, workload.step_module(), point=str(budget))
    try:
        prepared = method(solver, ()).prepare(task)
    except Unavailable:
        return None
    facts = prepared.facts()
    # What a single solver can't fit is handed to the search for the floor.
    if solver != "auto" and facts["solver"] not in (solver, "baseline"):
        return None
    step = Step(task.step, prepared.call)
    step.run(workload.batch(0))
    step.clear()
    return Planned(step, 1 + facts["predicted_extra"], facts["planning_s"])


def measure(model: str, size: str, budget: float) -> dict[str, Any]:
    """One row: `auto`'s step against the eager one and against each single solver's."""
    row: dict[str, Any] = {"key": f"{model}/{size}/{budget}", "model": model, "size": size}
    row |= {"budget": budget, "status": "below the floor", "single": {}}
    auto = planned(model, size, "auto", budget)
    if auto is None:
        return row
    workload = zoo.get(model).make(size, seed=0)
    module = workload.step_module()
    eager = Step(module, module)
    eager.run(workload.batch(0))
    row |= {"status": "ok", "predicted": auto.predicted, "planning_s": auto.planning_s}
    row["ratio_to_eager"] = _ratio(eager, auto.step, workload)
    for solver in SINGLE:
        other = planned(model, size, solver, budget)
        row["single"][solver] = None
        if other is not None:
            row["single"][solver] = {
                "predicted_ratio": auto.predicted / other.predicted,
                "planning_s": other.planning_s,
                "ratio": _ratio(other.step, auto.step, workload),
            }
    return row


def _ratio(reference: Step, step: Step, workload: zoo.Workload) -> dict[str, Any]:
    found = time_ratio(reference, step, workload.batch, rounds=_ROUNDS, limit_s=_LIMIT_S)
    return asdict(found)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a model and budget."""
    lines = [
        "| model | budget | over eager | "
        + " | ".join(f"against {solver} | predicted" for solver in SINGLE)
        + " |",
        "|---" * (3 + 2 * len(SINGLE)) + "|",
    ]
    for row in rows:
        if row["status"] != "ok":
            continue
        cells = [_percent(row["ratio_to_eager"])]
        for solver in SINGLE:
            found = row["single"][solver]
            if found is None:
                cells += ["no fit", ""]
            else:
                cells += [
                    _percent(found["ratio"]),
                    f"{100 * (found['predicted_ratio'] - 1):+.1f} %",
                ]
        lines.append(f"| {row['model']} | {row['budget']:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _percent(ratio: Mapping[str, float]) -> str:
    """The median with the ends of the middle half."""
    median, low, high = (100 * (ratio[name] - 1) for name in ("median", "low", "high"))
    return f"{median:+.1f} % [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "report", "one"])
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(zoo.CASES))
    parser.add_argument("--budgets", nargs="*", type=float, default=list(BUDGETS))
    parser.add_argument("--size", default="bench")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--into", type=Path)
    args = parser.parse_args()
    if args.action == "report":
        show(table(list(records.load(args.out).values())), args.into, BEGIN, END)
        return
    if args.action == "one":
        torch.set_num_threads(1)
        print_row(measure(args.models[0], args.size, args.budgets[0]))
        return
    for model in args.models:
        for budget in args.budgets:
            if f"{model}/{args.size}/{budget}" in records.load(args.out):
                continue
            cell = ["--models", model, "--budgets", str(budget), "--size", args.size]
            (row,) = rows_of("benchmarks.better_plans", "one", *cell)
            records.append(args.out, row | records.environment(1))
            print(table([row]))


if __name__ == "__main__":
    main()
