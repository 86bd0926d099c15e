"""Estimates that are kept: published models at their size, and against what was measured.

python -m benchmarks.estimates sizes [--models llama3_8b ...] [--device h100]
python -m benchmarks.estimates gpu       against the kept rows of an H200
python -m benchmarks.estimates ranks     budgets by estimated and measured time, on this CPU
python -m benchmarks.estimates report    the tables of docs/real-sizes.md and docs/estimate.md

Each estimate is made in a process of its own, whose time and largest resident memory are in its
row. Rows go to benchmarks/results/estimate.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import fxremat
from benchmarks import real_sizes, records, zoo
from benchmarks.cuda.parts import BENCH_NUMBERS, EXACT_SETTINGS
from benchmarks.own_process import print_row, rows_of
from fxremat.estimate.text import percent
from fxremat.report.explain import human_bytes
from fxremat_solvers import quick

OUT = Path("benchmarks/results/estimate")
CUDA = Path("benchmarks/results/cuda")
RANKED = ("two-tower", "gpt2-sdpa", "resnet50")
_ROUNDS = 5


def size_row(name: str, device: str) -> dict[str, Any]:
    """The estimate of a published model in bfloat16."""
    started = time.perf_counter()
    found = fxremat.estimate(getattr(real_sizes, name), device=device, dtype="bf16")
    wall_s = time.perf_counter() - started
    figures = {key: value for key, value in found.to_dict().items() if key != "device"}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "key": f"size/{name}/{device}",
        "model": name,
        "device": device,
        "usable_bytes": found.device.usable_bytes,
        "wall_s": round(wall_s, 1),
        "processor_s": round(usage.ru_utime + usage.ru_stime, 1),
        "resident_gib": round(usage.ru_maxrss / 2**20, 2),
        **figures,
    }


def gpu_rows() -> Iterator[dict[str, Any]]:
    """What an H200 measured beside what is estimated for it."""
    exact = _jsonl(CUDA / "h200-44e671a" / "exactness.jsonl")
    timed = _jsonl(CUDA / "h200-1f765ea" / "bench.jsonl")
    for setting in EXACT_SETTINGS:
        rows = [row for row in exact if row["model"] == setting.model]
        if not rows:  # It came to the kit after these rows.
            continue
        found = _on_h200(setting.model, setting.numbers, setting.autocast)
        base = found.problem.baseline_cost
        points: list[dict[str, Any]] = []
        for row in rows:
            if row["budget"] == "floor":
                continue
            planned = quick(found.problem, row["budget_bytes"])
            points.append(
                {
                    "budget": row["budget"],
                    "estimated_extra": planned.cost / base - 1,
                    "planned_extra": row["predicted_extra"],
                }
            )
        yield {
            "key": f"bytes/{setting.model}",
            "model": setting.model,
            "autocast": str(setting.autocast or "none").removeprefix("torch."),
            "estimated_peak": found.peak_bytes,
            "measured_peak": rows[0]["baseline_peak_bytes"],
            "estimated_floor": found.floor_bytes,
            "measured_floor": rows[0]["floor_bytes"],
            "points": points,
        }
    for model, numbers in BENCH_NUMBERS.items():
        eager = [row for row in timed if row.get("model") == model and row["method"] == "eager"]
        if not eager or "time" not in eager[0]:
            continue
        own = [row for row in timed if row.get("model") == model and row["method"] == "fxremat"]
        found = _on_h200(model, numbers, torch.bfloat16)
        base = found.problem.baseline_cost
        points = [
            {
                "point": row["point"],
                "measured_s": row["time"]["step_s"],
                "measured_extra": row["time"]["median"] - 1,
                "estimated_extra": quick(found.problem, row["facts"]["budget_bytes"]).cost / base
                - 1,
            }
            for row in own
            if row["status"] == "ok"
        ]
        yield {
            "key": f"time/{model}",
            "model": model,
            "autocast": "bfloat16",
            "estimated_peak": found.peak_bytes,
            "measured_peak": own[0]["facts"]["baseline_peak_bytes"],
            "estimated_s": found.step_seconds,
            "estimated_kernels_s": found.kernel_seconds,
            "measured_s": eager[0]["time"]["step_s"],
            "points": points,
        }


def _on_h200(model: str, numbers: Any, autocast: torch.dtype | None) -> fxremat.Estimate:
    workload = zoo.get(model).make("cuda", **numbers).to("cpu", autocast)
    batch = workload.batch(0)
    module = workload.step_module()
    return fxremat.estimate(module, batch, device="h200", batch_sizes=[], points=2, time_limit_s=20)


def rank_row(model: str) -> dict[str, Any]:
    """Estimated and measured times of a step under budgets, by alternating rounds."""
    workload = zoo.get(model).make("bench")
    module, batch = workload.step_module(), workload.batch(0)
    found = fxremat.estimate(module, batch, device="cpu", batch_sizes=[], points=6, time_limit_s=30)
    last = len(found.points) - 1
    chosen = [found.points[k] for k in sorted({0, last // 3, 2 * last // 3, last})]
    steps = [
        fxremat.optimize(module, budget=point.step_bytes, cost="roofline", preset="brief")
        for point in chosen
    ]
    taken: list[list[float]] = [[] for _ in steps]
    for turn in range(_ROUNDS + 1):
        for step, times in zip(steps, taken, strict=True):
            module.zero_grad(set_to_none=True)
            began = time.process_time()
            step(*batch).backward()
            if turn:  # the first compiles
                times.append(time.process_time() - began)
    seconds = [min(times) for times in taken]
    extras = [fxremat.explain(step) for step in steps]
    return {
        "key": f"ranks/{model}",
        "model": model,
        "estimated_s": found.step_seconds,
        "points": [
            {
                "step_bytes": point.step_bytes,
                "estimated_extra": report.extra_seconds / report.baseline_seconds,
                "quick_extra": point.extra,
                "measured_extra": each / seconds[-1] - 1,
            }
            for point, report, each in zip(chosen, extras, seconds, strict=True)
        ],
        "measured_s": seconds[-1],
    }


def report() -> str:
    """The tables of the docs, from the rows."""
    rows = list(records.load(OUT).values())
    lines = [
        "| model | batch | parameters, state | step | least | fits 80 GB | +0 % | +10 % | +20 % "
        "| +35 % | seconds | GiB |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if not row["key"].startswith("size/"):
            continue
        own = row["resident"]
        at = row["at_budget"]
        fits = "no plan" if at is None else f"at {at['extra']:+.1%}"
        largest = [str(each["batch"] or "none") for each in row["largest"]]
        lines.append(
            f"| {row['model']} | {row['batch']} | {human_bytes(own['parameter_bytes'])}, "
            f"{human_bytes(own['optimizer_bytes'])} | {human_bytes(row['peak_bytes'])} | "
            f"{human_bytes(row['floor_bytes'])} at {row['points'][0]['extra']:+.1%} | {fits} | "
            f"{' | '.join(largest)} | {row['wall_s']:.0f} | {row['resident_gib']:.1f} |"
        )
    for row in rows:
        if row["key"].startswith("size/"):
            lines += ["", f"{row['model']}, batch {row['batch']}:", ""]
            lines += ["| step memory | all memory | extra time | bound | fits |"]
            lines += ["| ---: | ---: | ---: | ---: | --- |"]
            lines += [
                f"| {human_bytes(p['step_bytes'])} | {human_bytes(p['all_bytes'])} | "
                f"{p['extra']:+.1%} | {percent(p['bound'])} | {'yes' if p['fits'] else 'no'} |"
                for p in reversed(row["points"])
            ]
    lines += ["", "| bytes | autocast | estimated | measured | floor | measured |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        if row["key"].startswith("bytes/"):
            sizes = [
                f"{row[key] / 2**20:,.1f}"
                for key in ("estimated_peak", "measured_peak", "estimated_floor", "measured_floor")
            ]
            lines.append(f"| {row['model']} | {row['autocast']} | {' | '.join(sizes)} |")
    lines += ["", "| time | estimated, ms | of kernels | measured | peak, MiB | measured |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        if row["key"].startswith("time/"):
            times = [
                f"{1e3 * row[key]:.1f}"
                for key in ("estimated_s", "estimated_kernels_s", "measured_s")
            ]
            sizes = [f"{row[key] / 2**20:,.1f}" for key in ("estimated_peak", "measured_peak")]
            lines.append(f"| {row['model']} | {' | '.join(times)} | {' | '.join(sizes)} |")
    lines += [
        "",
        "| budgets | step memory | estimated | measured |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        kind = row["key"].partition("/")[0]
        for p in row["points"] if kind in ("ranks", "time") else ():
            where = human_bytes(p["step_bytes"]) if kind == "ranks" else f"at {p['point']}"
            lines.append(
                f"| {row['model']}{'' if kind == 'ranks' else ', H200'} | {where} | "
                f"{p['estimated_extra']:+.1%} | {p['measured_extra']:+.1%} |"
            )
    return "\n".join(lines)


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates", description=__doc__)
    parser.add_argument("part", choices=["sizes", "gpu", "ranks", "report"])
    parser.add_argument("--models", nargs="+", help="only these")
    parser.add_argument("--device", default="h100")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print_row(size_row(args.one, args.device) if args.part == "sizes" else rank_row(args.one))
        return
    if args.part == "report":
        print(report())
        return
    if args.part == "gpu":
        for row in gpu_rows():
            records.append(OUT, row)
        records.compact(OUT)
        return
    every = [f.__name__ for f in real_sizes.FACTORIES] if args.part == "sizes" else RANKED
    for name in args.models or every:
        options = [args.part, "--one", name, "--device", args.device]
        for row in rows_of("benchmarks.estimates", *options):
            records.append(OUT, row)
    records.compact(OUT)


if __name__ == "__main__":
    main()
