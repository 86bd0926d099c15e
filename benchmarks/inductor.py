"""Inductor's kernels under plans against plain torch.compile: peaks, step times and bits.

python -m benchmarks.inductor [MODEL ...] [--budgets 0.7 0.5] [--size bench]

All variants of a model run in one process, each on a copy of the model, and their steps take
turns: `of_plain_time` is the median over rounds of a step's processor time over that of the plain
one in the same round, with quartiles. Budgets are shares of the measured peak of plain
`torch.compile`. "kernels" is fxremat with nothing to recompute. Bits are of losses, gradients,
buffers and the random state after three steps.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fxremat
from benchmarks import records, zoo
from benchmarks.cuda.machine import commit
from benchmarks.own_process import child_environment, print_row, rows_of

OUT = Path("benchmarks/results/inductor")
MODELS = ("gpt2-eager", "llama-sdpa", "bert-sdpa", "vit-sdpa", "unet", "two-tower", "ode48")
STEPS = 3
ROUNDS = 15


@dataclass(frozen=True)
class Variant:
    """A compiled copy of a model: what it left and took. `seconds` are filled round by round."""

    name: str
    workload: zoo.Workload
    module: nn.Module
    call: Any
    bits: str
    peak_bytes: int
    seconds: list[float] = field(default_factory=list[float])

    @staticmethod
    def of(name: str, model: str, size: str, make: Callable[[nn.Module], Any]) -> Variant:
        """Three steps from one seed, then the peak of a fourth."""
        workload = zoo.get(model).make(size)
        module = workload.step_module()
        call = make(module)
        digest = hashlib.sha256()
        torch.manual_seed(7)
        for index in range(STEPS):
            module.zero_grad()
            loss = call(*workload.batch(index))
            loss.backward()
            left = [loss.detach(), *module.buffers(), torch.get_rng_state()]
            left += [p.grad for p in module.parameters() if p.grad is not None]
            for tensor in left:
                digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        module.zero_grad()
        batch = workload.batch(0)
        peak = fxremat.measure_peak(lambda: call(*batch).backward()).peak_bytes
        return Variant(name, workload, module, call, digest.hexdigest()[:16], peak)

    def time_step(self) -> None:
        batch = self.workload.batch(0)
        self.module.zero_grad()
        began = time.process_time()
        self.call(*batch).backward()
        self.seconds.append(time.process_time() - began)


def measure(model: str, budgets: list[float], size: str) -> list[dict[str, Any]]:
    """The rows of a model: plain, its kernels, and each budget."""

    def planned(budget: int | float) -> Callable[[nn.Module], Any]:
        return lambda m: fxremat.optimize(m, budget=budget, executor="inductor", effort=1.0)

    plain = Variant.of("plain", model, size, torch.compile)
    kernels = Variant.of("kernels", model, size, planned(1.0))
    variants, rows = [plain, kernels], list[dict[str, Any]]()
    for share in budgets:
        budget = int(share * plain.peak_bytes)
        try:
            variants.append(Variant.of(str(share), model, size, planned(budget)))
        except fxremat.BudgetInfeasible as error:
            floor = error.floor_bytes
            rows.append({"variant": str(share), "status": "below the floor", "floor_bytes": floor})
    for _ in range(ROUNDS):
        for variant in variants:
            variant.time_step()
    for variant in variants:
        ratios = [a / b for a, b in zip(variant.seconds, plain.seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        row: dict[str, Any] = {
            "variant": variant.name,
            "status": "ok",
            "peak_bytes": variant.peak_bytes,
            "of_plain_peak": variant.peak_bytes / plain.peak_bytes,
            "of_plain_time": middle,
            "of_plain_time_quartiles": [low, high],
            "step_s": statistics.median(variant.seconds),
            "has_plain_bits": variant.bits == plain.bits,
            "has_kernels_bits": variant.bits == kernels.bits,
        }
        if variant is not plain:
            about = fxremat.explain(variant.call)
            row["budget_bytes"] = about.budget_bytes
            row["planned_peak_bytes"] = about.planned_peak_bytes
            row["predicted_extra"] = about.extra_seconds / about.baseline_seconds
            row["predicted_bound"] = about.lower_bound_seconds / about.baseline_seconds
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--budgets", nargs="*", type=float, default=[0.7, 0.5])
    parser.add_argument("--size", choices=("tiny", "quick", "bench"), default="bench")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        torch.set_num_threads(1)
        for row in measure(args.models[0], args.budgets, args.size):
            print_row(row)
        return
    os.environ.update(child_environment(1) | {"HF_HUB_OFFLINE": "1"})
    about = {
        **records.environment(1),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks.inductor", *sys.argv[1:]]),
    }
    for model in args.models:
        cell = [model, "--size", args.size, "--budgets", *map(str, args.budgets), "--one"]
        for row in rows_of("benchmarks.inductor", *cell):
            key = f"{model}/{args.size}/{row['variant']}"
            row = {"key": key, "model": model, "size": args.size, **row, **about}
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
