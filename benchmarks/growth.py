"""How the solver's time and memory grow with the graph: joint graphs of ever deeper GPTs.

python -m benchmarks.growth [--layers 4 12 ...] [--budgets 0.7 0.5 0.3]

Graphs are `fxremat_solvers.generate.transformer`, solved by `auto`, each in a process of its own.
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
from benchmarks.own_process import print_row, rows_of
from benchmarks.plots import save
from fxremat_solvers import baseline, simulate, solve
from fxremat_solvers.generate import transformer

OUT = Path("benchmarks/results/growth")
LAYERS = (2, 4, 8, 12, 24, 48, 100, 222)


def measure(layers: int, share: float) -> dict[str, Any]:
    """One solve of a stack of so many layers at a share of its peak."""
    problem = transformer(layers)
    peak = simulate(problem, baseline(problem)).peak_bytes
    small = transformer(1)
    solve(small, int(0.7 * simulate(small, baseline(small)).peak_bytes))  # loads what is compiled
    began, began_s = time.process_time(), time.perf_counter()
    solution = solve(problem, int(share * peak), time_limit_s=120.0)
    clock_s = time.perf_counter() - began_s
    return {
        "key": f"{layers}/{share}",
        "layers": layers,
        "ops": len(problem.ops),
        "budget": share,
        "status": str(solution.status),
        "extra": solution.cost / problem.baseline_cost - 1,
        "bound": solution.lower_bound / problem.baseline_cost - 1,
        "seconds": round(time.process_time() - began, 3),
        "clock_s": round(clock_s, 3),
        "resident_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def plot(rows: list[dict[str, Any]], path: Path) -> Path:
    """Seconds and memory against the number of ops, a line a budget."""
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
    parser.add_argument("--layers", nargs="*", type=int, default=list(LAYERS))
    parser.add_argument("--budgets", nargs="*", type=float, default=[0.7, 0.5, 0.3])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print_row(measure(args.layers[0], args.budgets[0]))
        return
    for layers in args.layers:
        for share in args.budgets:
            cell = ["--one", "--layers", str(layers), "--budgets", str(share)]
            (row,) = rows_of("benchmarks.growth", *cell)
            records.append(OUT, row | records.environment(1))
            print(row)
    records.compact(OUT)
    print(plot(list(map(dict, records.load(OUT).values())), OUT / "growth.png"))


if __name__ == "__main__":
    main()
