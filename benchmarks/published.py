"""Graphs of the kind and size that other papers solve, at their budgets.

python -m benchmarks.published [--preset fast|thorough] [--moccasin FOLDER] [--out FOLDER]

The graphs are our generators', and the papers' costs were measured on their devices: figures side
by side say "of the same order", not "better by so much". But for the random layered graphs that
Moccasin's authors published (github.com/haoming-codes/moccasin, the folder `data`): with
`--moccasin` those very files are solved, at the budgets of their paper. They are not kept here, as
they come without a licence.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.cuda.machine import commit
from fxremat_solvers import PRESETS, RematProblem, baseline, simulate, solve
from fxremat_solvers.search.greedy import compile_walk
from fxremat_solvers.search.kernel import kernel
from fxremat_solvers.testing import dag, layered, layered_network, resnet, unet, vgg

OUT = Path("bench-output/published")
GIB = 2**30
# ResNet-50 at batch 184 on 224 x 224, extra time in per cent: MONeT (ICLR 2021), which ran
# Checkmate with Gurobi for 24 hours. Random layered graphs: Moccasin (ICML 2023) in an
# hour, FastSA (NeurIPS 2023) in 36 s.
RESNET = {
    10: {"Checkmate": 6.04, "MONeT": 3.22},
    8: {"Checkmate": 8.30, "MONeT": 5.56},
    6: {"Checkmate": 11.46, "MONeT": 9.31},
    5: {"Checkmate": 20.5, "MONeT": 11.95},
}
LAYERED = {(1000, 0.8): {"Moccasin": 3.4, "FastSA": 2.5}, (100, 0.9): {"FastSA": 0.0}}


def cases() -> Iterator[tuple[str, RematProblem, int, dict[str, float]]]:
    """A name, a problem, a budget in bytes, and what others published for its kind."""
    problem = resnet(batch=184)
    for gib, others in RESNET.items():
        yield f"ResNet-50 b184, {gib} GiB", problem, gib * GIB, others
    for name, made in (
        ("VGG-16 b167", vgg(batch=167)),
        ("U-Net b8, 5 levels", unet(5)),
    ):
        peak = simulate(made, baseline(made)).peak_bytes
        for share in (0.7, 0.5, 0.4):
            yield f"{name}, {share:g} of the peak", made, int(share * peak), {}
    for kind in (layered, layered_network):
        for n in (100, 250, 1000):
            for seed in (0, 1):
                made = kind(n, seed=seed)
                peak = simulate(made, baseline(made)).peak_bytes
                for share in (0.9, 0.8):
                    name = f"{kind.__name__} n={n} #{seed}, {share:g}"
                    yield name, made, int(share * peak), LAYERED.get((n, share), {})


def moccasin(folder: Path) -> Iterator[tuple[str, RematProblem, int, dict[str, float]]]:
    """The same of the random layered graphs in Moccasin's folder, in the order that they give."""
    for path in sorted(folder.glob("random_layered_*.json"), key=lambda path: path.stat().st_size):
        graph = json.loads(path.read_text())
        order: list[int] = graph["graph"]["order"]
        node_of = {node["name"]: node for node in graph["nodes"]}
        problem = dag(
            order,
            [(link["0"], link["1"]) for link in graph["links"]],
            [node_of[node]["out_cost"] for node in order],
            [node_of[node]["duration"] for node in order],
        )
        peak = simulate(problem, baseline(problem)).peak_bytes
        for share in (0.9, 0.8):
            name = f"Moccasin's n={len(order)}, {share:g}"
            yield name, problem, math.ceil(share * peak), LAYERED.get((len(order), share), {})


def measure(problem: RematProblem, budget_bytes: int, preset: str) -> dict[str, Any]:
    compile_walk()  # once a machine, and no part of the seconds
    kernel(problem)
    began, began_s = time.process_time(), time.perf_counter()
    solution = solve(problem, budget_bytes, preset=preset, time_limit_s=60.0)
    seconds, clock_s = time.process_time() - began, time.perf_counter() - began_s
    peak = simulate(problem, baseline(problem)).peak_bytes
    return {
        "ops": len(problem.ops),
        "share_of_peak": budget_bytes / peak,
        "status": str(solution.status),
        "extra_percent": 100 * (solution.cost / problem.baseline_cost - 1),
        "bound_percent": 100 * (solution.lower_bound / problem.baseline_cost - 1),
        "seconds": round(seconds, 2),  # of processor time, all threads
        "clock_s": round(clock_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moccasin", type=Path, help="solve the graphs in this folder only")
    parser.add_argument("--preset", default="fast", choices=list(PRESETS))
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    folder: Path | None = args.moccasin
    if folder and not any(folder.glob("random_layered_*.json")):
        parser.error(f"{folder} has no random_layered_*.json")
    print("| graph | ops | of its peak | fxremat | bound | seconds | published |")
    print("|---|---|---|---|---|---|---|")
    for name, problem, budget_bytes, others in moccasin(folder) if folder else cases():
        row = {"key": f"{name}/{args.preset}", "preset": args.preset, "commit": commit()}
        row |= {**measure(problem, budget_bytes, args.preset), "published": others}
        records.append(args.out, row | records.environment(1))
        said = ", ".join(f"{who} {extra:g} %" for who, extra in others.items())
        extra = "no fit" if row["status"] == "infeasible" else f"{row['extra_percent']:.2f} %"
        print(
            f"| {name} | {row['ops']} | {row['share_of_peak']:.2f} | {extra} | "
            f"{row['bound_percent']:.2f} % | {row['seconds']:.1f} | {said} |",
            flush=True,
        )
    records.compact(args.out)


if __name__ == "__main__":
    main()
