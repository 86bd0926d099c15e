"""What planning takes in a process that begins, and in one that begins again.

python -m benchmarks.restart [MODEL ...] [--size bench] [--budget 0.5] [--out DIR]
python -m benchmarks.restart --kept DIR [--into PAGE]      the table of kept rows

A training script's first step runs in three processes, one after the other, on one thread. The
first finds no cache; the others find what it left. Seconds are wall time: of planning, which is all
that fxremat does after the step is traced, and of the whole first step.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import fxremat
from benchmarks import records, zoo
from benchmarks.cuda.machine import commit
from benchmarks.marks import show
from benchmarks.own_process import child_environment, print_row, rows_of

OUT = Path("benchmarks/results/restart")
MODELS = ("gpt2-eager", "bert-sdpa", "llama-sdpa", "t5", "vit-sdpa", "resnet50", "unet", "mamba")
PROCESSES = 3
BEGIN, END = "<!-- restart: begin -->", "<!-- restart: end -->"


def first_step(model: str, size: str, budget: float) -> dict[str, Any]:
    workload = zoo.get(model).make(size)
    step = fxremat.optimize(workload.step_module(), budget=budget)
    batch = workload.batch(0)
    began = time.perf_counter()
    step(*batch).backward()
    seconds = time.perf_counter() - began
    report = fxremat.explain(step)
    return {
        "planning_s": report.planning_s,
        "search_s": report.solve_s,
        "first_step_s": seconds,
        "extra": report.extra_seconds / report.baseline_seconds,
        "planned_peak_bytes": report.planned_peak_bytes,
    }


def table(out: Path) -> str:
    lines = [
        "| model | planning, first process, s | second | third | first step, first process, s "
        "| second | third |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in records.load(out).values():
        planning = " | ".join(f"{each:.2f}" for each in row["planning_s"])
        steps = " | ".join(f"{each:.1f}" for each in row["first_step_s"])
        lines.append(f"| {row['model']} | {planning} | {steps} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--size", choices=("tiny", "quick", "bench"), default="bench")
    parser.add_argument("--budget", type=float, default=0.5, help="of the step memory")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--kept", type=Path, help="show the rows of this folder, measure nothing")
    parser.add_argument("--into", type=Path, help="show them in this page, between its two marks")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kept:
        show(table(args.kept), args.into, BEGIN, END)
        return
    if args.one:
        torch.set_num_threads(1)
        print_row(first_step(args.models[0], args.size, args.budget))
        return
    os.environ.update(child_environment(1) | {"HF_HUB_OFFLINE": "1"})
    for model in args.models:
        asked = [model, "--size", args.size, "--budget", str(args.budget), "--one"]
        with tempfile.TemporaryDirectory() as cache:
            os.environ["FXREMAT_CACHE"] = cache
            found = [rows_of("benchmarks.restart", *asked)[0] for _ in range(PROCESSES)]
        row: dict[str, Any] = {
            "key": f"{model}/{args.size}/{args.budget}",
            "status": "ok",
            "model": model,
            "size": args.size,
            "budget": args.budget,
            **{name: [each[name] for each in found] for name in found[0]},
            **records.environment(1),
            "commit": commit(),
            "command": " ".join(["python -m benchmarks.restart", *records.told(sys.argv[1:])]),
        }
        records.append(args.out, row)
        print(model, *(f"{each['planning_s']:.2f} s" for each in found), flush=True)
    records.compact(args.out)
    print(table(args.out))


if __name__ == "__main__":
    main()
