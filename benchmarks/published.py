"""Graphs of the kind and size that other papers solve, at their budgets.

python -m benchmarks.published

The graphs are our generators' (the papers' own files are not at hand, and their costs were measured
on their devices), so figures side by side say "of the same order", not "better by so much".
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import records
from fxremat_solvers import RematProblem, baseline, simulate, solve
from fxremat_solvers.generate import layered, resnet, unet, vgg

OUT = Path("benchmarks/results/published")
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
    problem = resnet(batch=184, side=224)
    for gib, others in RESNET.items():
        yield f"ResNet-50 b184, {gib} GiB", problem, gib * GIB, others
    for name, made in (
        ("VGG-16 b167", vgg(batch=167)),
        ("U-Net b8, 5 levels", unet(5)),
    ):
        peak = simulate(made, baseline(made)).peak_bytes
        for share in (0.7, 0.5, 0.4):
            yield f"{name}, {share:g} of the peak", made, int(share * peak), {}
    for n, shares in ((100, (0.9, 0.8)), (250, (0.9, 0.8)), (1000, (0.9, 0.8))):
        for seed in (0, 1):
            made = layered(n, seed=seed)
            peak = simulate(made, baseline(made)).peak_bytes
            for share in shares:
                others = LAYERED.get((n, share), {})
                yield f"layered n={n} #{seed}, {share:g}", made, int(share * peak), others


def measure(problem: RematProblem, budget_bytes: int) -> dict[str, Any]:
    began = time.process_time()
    solution = solve(problem, budget_bytes, time_limit_s=30.0)
    seconds = time.process_time() - began
    peak = simulate(problem, baseline(problem)).peak_bytes
    return {
        "ops": len(problem.ops),
        "share_of_peak": budget_bytes / peak,
        "status": str(solution.status),
        "extra_percent": 100 * (solution.cost / problem.baseline_cost - 1),
        "bound_percent": 100 * (solution.lower_bound / problem.baseline_cost - 1),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    print("| graph | ops | of its peak | fxremat | bound | seconds | published |")
    print("|---|---|---|---|---|---|---|")
    for name, problem, budget_bytes, others in cases():
        row = {"key": name, **measure(problem, budget_bytes), "published": others}
        records.append(OUT, row | records.environment(1))
        said = ", ".join(f"{who} {extra:g} %" for who, extra in others.items())
        extra = "no fit" if row["status"] == "infeasible" else f"{row['extra_percent']:.2f} %"
        print(
            f"| {name} | {row['ops']} | {row['share_of_peak']:.2f} | {extra} | "
            f"{row['bound_percent']:.2f} % | {row['seconds']:.1f} | {said} |",
            flush=True,
        )
    records.compact(OUT)


if __name__ == "__main__":
    main()
