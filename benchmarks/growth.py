"""How the solver's time and memory grow with the graph: joint graphs of ever deeper GPTs.

python -m benchmarks.growth [--graphs 4 12 gpt2-eager ...] [--budgets 0.7 0.3] [--time-limit-s 5]

A number is a stack of so many layers by `fxremat_solvers.testing.transformer`, a name a graph of
the ablation, in which dropout and the head are as well; `ode-1024` is an ODE unrolled for so many
steps, and the share 0 its lowest peak. `auto` solves each in a process of its own.
Seconds are of processor time, all threads together, with everything compiled, imports left out;
memory is the largest resident size of the process, the interpreter and its libraries included.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks import records
from benchmarks.cuda.machine import commit
from benchmarks.joint_graphs import names, problem_of
from benchmarks.own_process import print_row, rows_of
from benchmarks.plots import save
from fxremat_solvers import RematProblem, baseline, floor, simulate, solve
from fxremat_solvers.testing import ode, transformer

OUT = Path("benchmarks/results/growth")
STACKS = ("2", "4", "8", "12", "24", "48", "100", "222")
MODELS = ("gpt2-eager", "gpt2-sdpa")  # of 12 layers
LOOP = "ode-"
LIMIT_S = 120.0
SHARES_OF_STACKS = (0.7, 0.5, 0.3)
SHARES_OF_MODELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def is_stack(graph: str) -> bool:
    """Whether the name is a number of layers."""
    return graph.isdigit()


def graph_of(name: str) -> RematProblem:
    """The graph by its name."""
    if is_stack(name):
        return transformer(int(name))
    return ode(int(name.removeprefix(LOOP))) if name.startswith(LOOP) else problem_of(name)


def measure(graph: str, share: float, time_limit_s: float) -> dict[str, Any]:
    """One solve of a graph at a share of its peak."""
    problem = graph_of(graph)
    peak = simulate(problem, baseline(problem)).peak_bytes
    small = transformer(1)
    solve(small, int(0.7 * simulate(small, baseline(small)).peak_bytes))  # loads what is compiled
    began, began_s = time.process_time(), time.perf_counter()
    if share:
        solution = solve(problem, int(share * peak), time_limit_s=time_limit_s)
    else:
        solution = floor(problem, time_limit_s=time_limit_s)
    clock_s = time.perf_counter() - began_s
    return {
        "key": f"{graph}/{share}" + (f"/{time_limit_s:g}s" if time_limit_s != LIMIT_S else ""),
        "graph": graph,
        "time_limit_s": time_limit_s,
        "ops": len(problem.ops),
        "budget": share,
        "baseline_peak_bytes": peak,
        "peak_bytes": solution.peak_bytes,
        "status": str(solution.status),
        "extra": solution.cost / problem.baseline_cost - 1,
        "bound": solution.lower_bound / problem.baseline_cost - 1,
        "seconds": round(time.process_time() - began, 3),
        "clock_s": round(clock_s, 3),
        "resident_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def plot(rows: list[dict[str, Any]], path: Path) -> Path:
    """Seconds and memory of the stacks against their number of ops, a line a budget."""
    rows = [row for row in rows if is_stack(row["graph"]) and row["time_limit_s"] == LIMIT_S]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for share in sorted({row["budget"] for row in rows}, reverse=True):
        own = sorted((row for row in rows if row["budget"] == share), key=lambda row: row["ops"])
        ops = [row["ops"] for row in own]
        left.plot(ops, [row["seconds"] for row in own], marker="o", label=f"{share:g} of the peak")
        right.plot(ops, [row["resident_mib"] for row in own], marker="o")
    left.set_ylabel("seconds of processor time")
    right.set_ylabel("resident memory of the process, MiB")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("ops of the joint graph")
        axes.grid(visible=True, which="both", alpha=0.2)
    left.legend()
    return save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", nargs="*", default=[*STACKS, *MODELS])
    parser.add_argument("--budgets", nargs="*", type=float, help="shares of the peak")
    parser.add_argument("--time-limit-s", type=float, default=LIMIT_S)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    made = [graph for graph in args.graphs if is_stack(graph) or graph.startswith(LOOP)]
    unknown = sorted({*args.graphs} - {*made, *names()})
    if unknown:
        parser.error(f"unknown graphs {unknown}: a number of layers or one of {names()}")
    if args.one:
        print_row(measure(args.graphs[0], args.budgets[0], args.time_limit_s))
        return
    for graph in args.graphs:
        shares = SHARES_OF_MODELS if graph in names() else SHARES_OF_STACKS
        for share in args.budgets or shares:
            limit = ["--time-limit-s", str(args.time_limit_s)]
            cell = ["--one", "--graphs", graph, "--budgets", str(share), *limit]
            (row,) = rows_of("benchmarks.growth", *cell)
            records.append(OUT, row | records.environment(1) | {"commit": commit()})
            print(row)
    records.compact(OUT)
    print(plot(list(map(dict, records.load(OUT).values())), OUT / "growth.png"))


if __name__ == "__main__":
    main()
