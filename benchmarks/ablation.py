"""Every solver on the joint graphs of real models, at every budget: when does which one pay?

python -m benchmarks.ablation run [--fixtures ...] [--solvers ...]
python -m benchmarks.ablation report [--into docs/solvers.md]

Both take `--out`: `run` goes on from the rows that it finds there, so the default is a folder of
one's own; the kept rows are in `benchmarks/results/ablation`.

Solvers: "greedy" (lookahead eviction, best of its rules), "mincut" (once-only plans by priced
cuts), "ilp" (integer program, 10 s, up to 700 ops), "auto" (the portfolio) and "auto-24x" (the
same at effort 24, where asked for by name). The floor that the lowest budget names is
the one `auto` finds. Seconds are of processor time, all threads together.
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

from benchmarks import records
from benchmarks.joint_graphs import names, problem_of
from benchmarks.marks import show
from benchmarks.plots import save
from fxremat_solvers import RematProblem, Status, baseline, floor, simulate, solve
from fxremat_solvers.bounds.peak_bound import peak_lower_bound

OUT = Path("bench-output/ablation")
BUDGETS = ("0.9", "0.8", "0.7", "0.6", "0.5", "0.4", "0.3", "0.2", "floor")
SOLVERS = ("greedy", "mincut", "ilp", "auto")
LONG = "auto-24x"
_MOST_OPS = {"ilp": 700, "mincut": 1200}
_TIME_LIMIT_S = {"ilp": 10.0, LONG: 600.0}
BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"


def measure(problem: RematProblem, budget_bytes: int, solver: str) -> dict[str, Any]:
    """What a solver finds under a budget, in shares of the baseline's cost, and what it took."""
    began = time.process_time()
    solution = solve(
        problem,
        budget_bytes,
        solver="auto" if solver == LONG else solver,
        time_limit_s=_TIME_LIMIT_S.get(solver, 120.0),
        effort=24.0 if solver == LONG else 1.0,
    )
    seconds = time.process_time() - began
    simulation = simulate(problem, solution.schedule)
    fits = simulation.peak_bytes <= budget_bytes
    base = problem.baseline_cost
    # What a solver can't fit, `solve` hands to the search for the floor: not this solver's plan.
    own = solver in ("auto", LONG) or solution.solver in (solver, "baseline")
    return {
        "status": str(solution.status),
        "fits": fits and own,
        "peak_bytes": simulation.peak_bytes,
        "extra": simulation.cost / base - 1 if fits and own else None,
        "bound": solution.lower_bound / base - 1
        if solution.status is not Status.INFEASIBLE
        else None,
        "found_by": solution.solver,
        "seconds": round(seconds, 3),
    }


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
        for budget, solver in track(cells, description=name):
            key = f"{name}/{budget}/{solver}"
            budget_bytes = lowest if budget == "floor" else int(float(budget) * peak)
            if key in done or len(problem.ops) > _MOST_OPS.get(solver, 1 << 30):
                continue
            if budget_bytes < lowest:
                continue
            row = {"key": key, **about, "budget": budget, "budget_bytes": budget_bytes}
            row |= {"solver": solver, **measure(problem, budget_bytes, solver)}
            records.append(folder, row | records.environment(1))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a fixture and budget: every solver's extra time in per cent, the bound, the gap."""
    solvers = [s for s in (*SOLVERS, LONG) if any(row["solver"] == s for row in rows)]
    lines = [
        "| graph | ops | budget | " + " | ".join(solvers) + " | bound | gap of auto | auto, s |",
        "|---" * (6 + len(solvers)) + "|",
    ]
    for (fixture, budget), group in itertools.groupby(
        sorted(rows, key=lambda r: (r["fixture"], BUDGETS.index(r["budget"]))),
        key=lambda r: (r["fixture"], r["budget"]),
    ):
        by = {row["solver"]: row for row in group}
        own = by.get("auto")
        if own is None:
            continue
        share = f" ({own['budget_bytes'] / own['baseline_peak_bytes']:.3f})"
        cells = [_percent(by[s]["extra"], "no fit") if s in by else "" for s in solvers]
        gap = "" if own["extra"] is None else _percent(own["extra"] - own["bound"], "")
        lines.append(
            f"| {fixture} | {own['ops']} | {budget}{share if budget == 'floor' else ''} | "
            + " | ".join(cells)
            + f" | {_percent(own['bound'], '')} | {gap} | {own['seconds']:.1f} |"
        )
    return "\n".join(lines)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Per solver against auto: how often it fits, how far above it is, the worst of both."""
    by = {(row["fixture"], row["budget"], row["solver"]): row for row in rows}
    lines = [
        "| solver | plans that fit | above auto, median | most above | most below auto | "
        "seconds, median |",
        "|---|---|---|---|---|---|",
    ]
    for solver in (*SOLVERS, LONG):
        own = [row for row in rows if row["solver"] == solver]
        if not own:
            continue
        pairs = [(row, by.get((row["fixture"], row["budget"], "auto"))) for row in own]
        over = [
            row["extra"] - auto["extra"]
            for row, auto in pairs
            if auto is not None and row["fits"] and auto["fits"]
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
        for solver in SOLVERS:
            points = [
                (r["budget_bytes"] / r["baseline_peak_bytes"], 100 * r["extra"])
                for r in rows
                if r["fixture"] == name and r["solver"] == solver and r["fits"]
            ]
            panel.plot(*zip(*sorted(points), strict=True), marker=".", label=solver)
        bounds = [
            (r["budget_bytes"] / r["baseline_peak_bytes"], 100 * r["bound"])
            for r in rows
            if r["fixture"] == name and r["solver"] == "auto" and r["bound"] is not None
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
    go = commands.add_parser("run")
    fixtures = names()
    go.add_argument("--fixtures", nargs="*", default=fixtures, choices=fixtures)
    go.add_argument("--solvers", nargs="*", default=list(SOLVERS), choices=[*SOLVERS, LONG])
    go.add_argument("--budgets", nargs="*", default=list(BUDGETS), choices=BUDGETS)
    report = commands.add_parser("report")
    report.add_argument("--into", type=Path)
    for command in (go, report):
        command.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.command == "run":
        run(args.fixtures, args.solvers, args.budgets, args.out)
        return
    rows = list(records.load(args.out).values())
    if not rows:
        raise SystemExit(f"no rows in {args.out / records.FILE}: run the ablation first")
    text = f"{summary(rows)}\n\n{table(rows)}"
    plot(rows, args.out / "ablation.png")
    show(text, args.into, BEGIN, END)


if __name__ == "__main__":
    main()
