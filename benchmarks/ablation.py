"""Every solver on the joint graphs of real models, at every budget: when does which one pay?

python -m benchmarks.ablation run [--fixtures ...] [--solvers ...] [--budgets ...]
python -m benchmarks.ablation report [--into docs/solver-results.md]
python -m benchmarks.ablation leave-one-out [--preset fast|thorough] [--without ...]
python -m benchmarks.ablation left-out [--into docs/solver-results.md]

All take `--out`: the runs go on from the rows that they find there, so the default is a folder of
one's own; the kept rows are in `benchmarks/results/ablation` and `.../leave_one_out`.
`leave_one_out` has the last two.

Solvers: "greedy" (lookahead eviction, best of its rules), "mincut" (once-only plans by priced
cuts), "ilp" (integer program, 10 s), and the portfolio by its presets "fast", the default, and
"thorough". Each is asked on graphs of the size that it is meant for. Seconds are of processor time,
all threads together.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from rich.progress import track

from benchmarks import leave_one_out, records
from benchmarks.cuda.machine import commit
from benchmarks.joint_graphs import names, problem_of
from benchmarks.marks import show
from benchmarks.plots import save
from fxremat_solvers import (
    PRESETS,
    SOLVERS,
    RematProblem,
    SolveOptions,
    baseline,
    floor,
    simulate,
    solve,
)
from fxremat_solvers.bounds.peak_bound import peak_lower_bound

OUT = Path("bench-output/ablation")
BUDGETS = ("0.9", "0.8", "0.7", "0.6", "0.5", "0.4", "0.3", "0.2", "floor")
PORTFOLIO = ("fast", "thorough")
COMPARED = ("greedy", "mincut", "ilp", *PORTFOLIO)
_TIME_LIMIT_S = {"ilp": 10.0}
BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"


def measure(problem: RematProblem, budget_bytes: int, compared: str) -> dict[str, Any]:
    """What one of them finds under a budget, in shares of the baseline's cost, and what it took."""
    options = _options(compared)
    began = time.process_time()
    solution = solve(problem, budget_bytes, options)
    seconds = time.process_time() - began
    solver = options.solver
    # What a solver can't fit, `solve` hands to the search for the floor: not this solver's plan.
    own = SOLVERS[solver].has_presets or solution.solver in (solver, "baseline")
    return {
        "solver": solver,
        "preset": options.preset if SOLVERS[solver].has_presets else None,
        **leave_one_out.figures(problem, budget_bytes, solution, own),
        "seconds": round(seconds, 3),
    }


def _options(compared: str) -> SolveOptions:
    limit_s = _TIME_LIMIT_S.get(compared, 300.0)
    if compared in PORTFOLIO:
        return SolveOptions(preset=compared, time_limit_s=limit_s)
    return SolveOptions(solver=compared, time_limit_s=limit_s)


def _compared(row: Mapping[str, Any]) -> str:
    return row.get("preset") or row["solver"]


def run(names: Sequence[str], solvers: Sequence[str], budgets: Sequence[str], folder: Path) -> None:
    """Measure what isn't among the rows in `folder` yet."""
    done = records.load(folder)
    for name in names:
        problem = problem_of(name)
        peak = simulate(problem, baseline(problem)).peak_bytes
        began = time.process_time()
        lowest = floor(problem).peak_bytes
        floor_s = time.process_time() - began
        about = {
            "fixture": name,
            "ops": len(problem.ops),
            "baseline_peak_bytes": peak,
            "floor_bytes": lowest,
            "floor_s": round(floor_s, 3),
            "peak_lower_bound": peak_lower_bound(problem),
        }
        cells = list(itertools.product(budgets, solvers))
        for budget, compared in track(cells, description=name):
            key = f"{name}/{budget}/{compared}"
            budget_bytes = lowest if budget == "floor" else int(float(budget) * peak)
            if key in done or len(problem.ops) > SOLVERS[_options(compared).solver].most_ops:
                continue
            if budget_bytes < lowest:
                continue
            row = {"key": key, **about, "budget": budget, "budget_bytes": budget_bytes}
            row |= measure(problem, budget_bytes, compared)
            records.append(folder, row | records.environment(1) | {"commit": commit()})


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a fixture and budget: every solver's extra time in per cent, the bound, the gap.

    The bound is the highest that one of them proved.
    """
    solvers = [s for s in COMPARED if any(_compared(row) == s for row in rows)]
    lines = [
        "| graph | ops | budget | " + " | ".join(solvers) + " | bound | gap of fast | fast, s |",
        "|---" * (6 + len(solvers)) + "|",
    ]
    for (fixture, budget), group in itertools.groupby(
        sorted(rows, key=lambda r: (r["fixture"], BUDGETS.index(r["budget"]))),
        key=lambda r: (r["fixture"], r["budget"]),
    ):
        by = {_compared(row): row for row in group}
        own = by.get("fast")
        if own is None:
            continue
        bound = max(row["bound"] for row in by.values() if row["bound"] is not None)
        share = f" ({own['budget_bytes'] / own['baseline_peak_bytes']:.3f})"
        cells = [_percent(by[s]["extra"], "no fit") if s in by else "" for s in solvers]
        gap = "" if own["extra"] is None else _percent(max(0.0, own["extra"] - bound), "")
        lines.append(
            f"| {fixture} | {own['ops']} | {budget}{share if budget == 'floor' else ''} | "
            + " | ".join(cells)
            + f" | {_percent(bound, '')} | {gap} | {own['seconds']:.1f} |"
        )
    return "\n".join(lines)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Per solver against fast: how often it fits, how far above it is, the worst of both."""
    by = {(row["fixture"], row["budget"], _compared(row)): row for row in rows}
    lines = [
        "| solver | plans that fit | above fast, median | most above | most below fast | "
        "seconds, median |",
        "|---|---|---|---|---|---|",
    ]
    for solver in COMPARED:
        own = [row for row in rows if _compared(row) == solver]
        if not own:
            continue
        pairs = [(row, by.get((row["fixture"], row["budget"], "fast"))) for row in own]
        over = [
            row["extra"] - fast["extra"]
            for row, fast in pairs
            if fast is not None and row["fits"] and fast["fits"]
        ]
        lines.append(
            f"| {solver} | {sum(row['fits'] for row in own)} of {len(own)} | "
            f"{_percent(statistics.median(over), '')} | {_percent(max(over), '')} | "
            f"{_percent(-min(over), '')} | "
            f"{statistics.median(row['seconds'] for row in own):.1f} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Extra time against the budget, a panel a graph, a line a solver, the bound below."""
    names = sorted({row["fixture"] for row in rows})
    columns = 4
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4 * columns, 3 * lines), squeeze=False)
    for panel, name in zip(axes.flat, names, strict=False):
        for solver in COMPARED:
            points = [
                (r["budget_bytes"] / r["baseline_peak_bytes"], 100 * r["extra"])
                for r in rows
                if r["fixture"] == name and _compared(r) == solver and r["fits"]
            ]
            panel.plot(*zip(*sorted(points), strict=True), marker=".", label=solver)
        bounds = [
            (r["budget_bytes"] / r["baseline_peak_bytes"], 100 * r["bound"])
            for r in rows
            if r["fixture"] == name and _compared(r) == "fast" and r["bound"] is not None
        ]
        panel.plot(*zip(*sorted(bounds), strict=True), color="black", ls="--", label="bound")
        panel.set_yscale("symlog", linthresh=10)
        panel.set_title(name)
        panel.set_xlabel("budget, share of the peak")
        panel.set_ylabel("extra time, %")
    for panel in list(axes.flat)[len(names) :]:
        panel.axis("off")
    axes.flat[0].legend()
    figure.tight_layout()
    return save(figure, path)


def _percent(share: float | None, missing: str) -> str:
    return missing if share is None else f"{100 * share:.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fixtures = names()
    go = commands.add_parser("run")
    go.add_argument("--solvers", nargs="*", default=list(COMPARED), choices=COMPARED)
    leave = commands.add_parser("leave-one-out")
    leave.add_argument("--without", nargs="*", default=[], help="what to leave out; else all")
    leave.add_argument("--floors", type=Path, default=Path("benchmarks/results/ablation"))
    for command in (go, leave):
        command.add_argument("--fixtures", nargs="*", default=fixtures, choices=fixtures)
        command.add_argument("--budgets", nargs="*", default=list(BUDGETS), choices=BUDGETS)
    leave.add_argument("--preset", default="fast", choices=list(PRESETS))
    report, left = commands.add_parser("report"), commands.add_parser("left-out")
    for command in (report, left):
        command.add_argument("--into", type=Path)
    for command, folder in (
        (go, OUT),
        (report, OUT),
        (leave, leave_one_out.OUT),
        (left, leave_one_out.OUT),
    ):
        command.add_argument("--out", type=Path, default=folder)
    args = parser.parse_args()
    if args.command == "run":
        run(args.fixtures, args.solvers, args.budgets, args.out)
        return
    if args.command == "leave-one-out":
        about = args.preset, args.without, args.floors
        leave_one_out.run(args.fixtures, args.budgets, *about, args.out)
        return
    rows = list(records.load(args.out).values())
    if not rows:
        raise SystemExit(f"no rows in {args.out / records.FILE}: run the ablation first")
    if args.command == "left-out":
        show(leave_one_out.table(rows), args.into, leave_one_out.BEGIN, leave_one_out.END)
        return
    plot(rows, args.out / "ablation.png")
    show(f"{summary(rows)}\n\n{table(rows)}", args.into, BEGIN, END)


if __name__ == "__main__":
    main()
