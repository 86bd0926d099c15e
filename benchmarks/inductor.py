"""Inductor's kernels under plans against plain torch.compile: peaks, step times and bits.

python -m benchmarks.inductor [MODEL ...] [--budgets 0.7 0.5] [--size bench]

Every variant runs in a process of its own, so that nothing that was compiled for another one can be
in its way; times of different processes are only as comparable as the machine is quiet. Budgets are
shares of the peak of plain `torch.compile`, as measured. "kernels" is fxremat with nothing to
recompute. `step_s` is the least of the steps, `compile_s` the processor time that the first step
takes beyond that. Bits are of losses, gradients, buffers and the random state after three steps.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import fxremat
from benchmarks import records, zoo
from benchmarks.cuda.machine import commit
from benchmarks.own_process import child_environment, print_row, rows_of

OUT = Path("benchmarks/results/inductor")
MODELS = ("gpt2-eager", "llama-sdpa", "bert-sdpa", "vit-sdpa", "unet", "two-tower", "ode48")
STEPS = 3
TIMED = 15


def measure(model: str, budget: str, size: str) -> dict[str, Any]:
    """The row of one variant: `budget` is "plain", "kernels" or a number of bytes."""
    workload = zoo.get(model).make(size)
    module = workload.step_module()
    if budget == "plain":
        call: Any = torch.compile(module)
    else:
        asked = 1.0 if budget == "kernels" else int(budget)
        call = fxremat.optimize(module, budget=asked, executor="inductor", effort=1.0)
    digest = hashlib.sha256()
    seconds: list[float] = []

    def step(index: int) -> torch.Tensor:
        module.zero_grad()
        loss = call(*workload.batch(index))
        loss.backward()
        return loss

    torch.manual_seed(7)
    began = time.process_time()
    try:
        for index in range(STEPS):
            loss = step(index)
            left = [loss.detach(), *module.buffers(), torch.get_rng_state()]
            left += [p.grad for p in module.parameters() if p.grad is not None]
            for tensor in left:
                digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            if not index:
                first = time.process_time() - began
    except fxremat.BudgetInfeasible as error:
        return {"status": "below the floor", "floor_bytes": error.floor_bytes}
    for _ in range(TIMED):
        began = time.perf_counter()
        step(0)
        seconds.append(time.perf_counter() - began)
    module.zero_grad()
    batch = workload.batch(0)
    row: dict[str, Any] = {
        "status": "ok",
        "peak_bytes": fxremat.measure_peak(lambda: call(*batch).backward()).peak_bytes,
        "step_s": min(seconds),
        "median_step_s": statistics.median(seconds),
        "compile_s": round(first - min(seconds), 2),
        "bits": digest.hexdigest()[:16],
    }
    if budget != "plain":
        about = fxremat.explain(call)
        row["planned_peak_bytes"] = about.planned_peak_bytes
        row["predicted_extra"] = about.extra_seconds / about.baseline_seconds
        row["planning_s"] = about.planning_s
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--budgets", nargs="*", type=float, default=[0.7, 0.5])
    parser.add_argument("--size", choices=("tiny", "quick", "bench"), default="bench")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        torch.set_num_threads(1)
        print_row(measure(args.models[0], args.one, args.size))
        return
    os.environ.update(child_environment(1) | {"HF_HUB_OFFLINE": "1"})
    about = {
        **records.environment(1),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks.inductor", *sys.argv[1:]]),
    }

    def row_of(model: str, budget: str) -> dict[str, Any]:
        cell = [model, "--size", args.size, "--one", budget]
        (row,) = rows_of("benchmarks.inductor", *cell)
        return row

    for model in args.models:
        plain = row_of(model, "plain")
        variants = {"plain": plain, "kernels": row_of(model, "kernels")}
        for share in args.budgets:
            variants[str(share)] = row_of(model, str(int(share * plain["peak_bytes"])))
        for variant, row in variants.items():
            key = f"{model}/{args.size}/{variant}"
            if row["status"] == "ok":
                row = {
                    **row,
                    "of_plain_peak": row["peak_bytes"] / plain["peak_bytes"],
                    "of_plain_time": row["step_s"] / plain["step_s"],
                    "has_plain_bits": row["bits"] == plain["bits"],
                    "has_kernels_bits": row["bits"] == variants["kernels"]["bits"],
                }
            row = {
                "key": key,
                "model": model,
                "size": args.size,
                "variant": variant,
                **row,
                **about,
            }
            records.append(args.out, row)
            print(line(row), flush=True)
    records.compact(args.out)


def line(row: dict[str, Any]) -> str:
    """What a reader wants to know of a row first."""
    name = f"{row['model']} {row['variant']}"
    if row["status"] != "ok":
        return f"{name}: below the floor of {row['floor_bytes']:,} B"
    planned = row.get("planned_peak_bytes", row["peak_bytes"])
    return (
        f"{name}: peak {row['of_plain_peak']:.3f} (measured / planned "
        f"{row['peak_bytes'] / planned:.5f}), time {row['of_plain_time']:.3f} of torch.compile's, "
        f"bits {'its' if row['has_plain_bits'] else 'others'}, "
        f"predicted {100 * row.get('predicted_extra', 0):.1f} % more"
    )


if __name__ == "__main__":
    main()
