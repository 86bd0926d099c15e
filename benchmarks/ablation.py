"""Every solver on the joint graphs of real models, at every budget: when does which one pay?

python -m benchmarks.ablation run [--fixtures ...] [--solvers ...] [--preset fast|thorough]
python -m benchmarks.ablation report [--into docs/solvers.md]
python -m benchmarks.ablation leave-one-out [--preset fast|thorough] [--budgets ...]
python -m benchmarks.ablation left-out [--into docs/solvers.md]

All take `--out`: the runs go on from the rows that they find there, so the default is a folder of
one's own; the kept rows are in `benchmarks/results/ablation` and `.../leave_one_out`.

Solvers: "greedy" (lookahead eviction, best of its rules), "mincut" (once-only plans by priced
cuts), "ilp" (integer program, 10 s) and "auto" (the portfolio, by a preset). Each is asked on
graphs of the size that it is meant for. `leave-one-out` runs the strategy of a preset as it is and
once without each of its steps. Seconds are of processor time, all threads together.
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
from fxremat_solvers import (
    PRESETS,
    SOLVERS,
    RematProblem,
    Solution,
    SolveOptions,
    Status,
    baseline,
    floor,
    simulate,
    solve,
)
from fxremat_solvers.bounds.peak_bound import peak_lower_bound
from fxremat_solvers.portfolio import portfolio
from fxremat_solvers.search.state import Step

OUT = Path("bench-output/ablation")
LEFT_OUT = Path("bench-output/leave_one_out")
BUDGETS = ("0.9", "0.8", "0.7", "0.6", "0.5", "0.4", "0.3", "0.2", "floor")
COMPARED = ("greedy", "mincut", "ilp", "auto")
LONG = "auto-24x"  # of kept rows: the portfolio with 24 times the edits of "thorough"
WHOLE = "nothing"
_TIME_LIMIT_S = {"ilp": 10.0}
BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"
LEFT_BEGIN, LEFT_END = "<!-- leave one out: begin -->", "<!-- leave one out: end -->"


def measure(problem: RematProblem, budget_bytes: int, solver: str, preset: str) -> dict[str, Any]:
    """What a solver finds under a budget, in shares of the baseline's cost, and what it took."""
    limit_s = _TIME_LIMIT_S.get(solver, 300.0)
    began = time.process_time()
    solution = solve(problem, budget_bytes, solver=solver, preset=preset, time_limit_s=limit_s)
    seconds = time.process_time() - began
    # What a solver can't fit, `solve` hands to the search for the floor: not this solver's plan.
    own = SOLVERS[solver].has_presets or solution.solver in (solver, "baseline")
    return {**figures(problem, budget_bytes, solution, own), "seconds": round(seconds, 3)}


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


def run(
    names: Sequence[str],
    solvers: Sequence[str],
    budgets: Sequence[str],
    preset: str,
    folder: Path,
) -> None:
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
            if key in done or len(problem.ops) > SOLVERS[solver].most_ops:
                continue
            if budget_bytes < lowest:
                continue
            row = {"key": key, **about, "budget": budget, "budget_bytes": budget_bytes}
            row |= {"solver": solver, "preset": preset}
            row |= measure(problem, budget_bytes, solver, preset)
            records.append(folder, row | records.environment(1))


def variants(preset: str) -> dict[str, tuple[Step, ...]]:
    """The strategy of a preset as it is, and without each of its steps."""
    strategy = PRESETS[preset]
    found = {WHOLE: strategy}
    for k, step in enumerate(strategy):
        name = step.name if step.name not in found else f"{step.name} ({k})"
        found[name] = (*strategy[:k], *strategy[k + 1 :])
    return found


def leave_one_out(
    names: Sequence[str], budgets: Sequence[str], preset: str, floors: Path, folder: Path
) -> None:
    """Run each variant on each graph at each budget; `floors` are rows that say the floors."""
    done = records.load(folder)
    known = {row["fixture"]: row["floor_bytes"] for row in records.load(floors).values()}
    for name in names:
        problem = problem_of(name)
        peak = simulate(problem, baseline(problem)).peak_bytes
        lowest = known.get(name) or floor(problem).peak_bytes
        for budget, (left_out, strategy) in itertools.product(budgets, variants(preset).items()):
            key = f"{name}/{budget}/{preset}/{left_out}"
            budget_bytes = lowest if budget == "floor" else int(float(budget) * peak)
            if key in done or budget_bytes < lowest:
                continue
            began = time.process_time()
            options = SolveOptions(preset=preset, time_limit_s=300.0)
            solution = portfolio(problem, budget_bytes, options, strategy).solution
            seconds = time.process_time() - began
            row = {"key": key, "fixture": name, "ops": len(problem.ops), "budget": budget}
            row |= {"budget_bytes": budget_bytes, "preset": preset, "left_out": left_out}
            row |= {**figures(problem, budget_bytes, solution), "seconds": round(seconds, 3)}
            records.append(folder, row | records.environment(1))


def left_out_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a step: what is lost without it, in points of the baseline's cost."""
    lines = [
        "| preset | without | plans | lost, mean | lost, most | gained, most | bound lost, mean | "
        "no fit | seconds saved |",
        "|---" * 9 + "|",
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
        lines.append(
            f"| {preset} | {left_out.replace('|', 'beside')} | {len(pairs)} | "
            f"{statistics.mean(lost):.2f} | {max(lost):.2f} | {max(0.0, -min(lost)):.2f} | "
            f"{statistics.mean(bound):.2f} | {unfit} | {saved} |"
        )
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a fixture and budget: every solver's extra time in per cent, the bound, the gap."""
    solvers = [s for s in (*COMPARED, LONG) if any(row["solver"] == s for row in rows)]
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
    for solver in (*COMPARED, LONG):
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
        for solver in COMPARED:
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
    fixtures = names()
    go = commands.add_parser("run")
    go.add_argument("--solvers", nargs="*", default=list(COMPARED), choices=COMPARED)
    leave = commands.add_parser("leave-one-out")
    leave.add_argument("--floors", type=Path, default=Path("benchmarks/results/ablation"))
    for command in (go, leave):
        command.add_argument("--fixtures", nargs="*", default=fixtures, choices=fixtures)
        command.add_argument("--budgets", nargs="*", default=list(BUDGETS), choices=BUDGETS)
        command.add_argument("--preset", default="fast", choices=list(PRESETS))
    report, left = commands.add_parser("report"), commands.add_parser("left-out")
    for command in (report, left):
        command.add_argument("--into", type=Path)
    for command, folder in ((go, OUT), (report, OUT), (leave, LEFT_OUT), (left, LEFT_OUT)):
        command.add_argument("--out", type=Path, default=folder)
    args = parser.parse_args()
    if args.command == "run":
        run(args.fixtures, args.solvers, args.budgets, args.preset, args.out)
        return
    if args.command == "leave-one-out":
        leave_one_out(args.fixtures, args.budgets, args.preset, args.floors, args.out)
        return
    rows = list(records.load(args.out).values())
    if not rows:
        raise SystemExit(f"no rows in {args.out / records.FILE}: run the ablation first")
    if args.command == "left-out":
        show(left_out_table(rows), args.into, LEFT_BEGIN, LEFT_END)
        return
    plot(rows, args.out / "ablation.png")
    show(f"{summary(rows)}\n\n{table(rows)}", args.into, BEGIN, END)


if __name__ == "__main__":
    main()
