"""Does it keep its word? Every model at every budget: measured peak, and every bit of the step.

python -m benchmarks.exactness [--models ...] [--budgets ...] [--size bench] [--out DIR]

Each model runs in a process of its own and writes a line a budget. References are the untouched
model in eager mode and AOTAutograd's own graph with nothing recomputed. Compared after each of
three steps: loss, every gradient, every buffer, the random state; and over twenty optimizer steps
the clipped gradient norms and whether clipping fired.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch._functorch.partitioners import default_partition

import fxremat
from benchmarks import zoo
from benchmarks.measure import Step, compare, step_peak, time_ratio
from benchmarks.methods.fxremat import floor_of
from benchmarks.own_process import ProcessFailed, print_row, rows_of
from benchmarks.records import environment
from benchmarks.zoo import Workload
from fxremat import torch_hooks
from fxremat.api import compiled_of

MODELS = (
    "gpt2-eager",
    "gpt2-sdpa",
    "bert-eager",
    "bert-sdpa",
    "vit-eager",
    "vit-sdpa",
    "resnet50",
    "unet",
    "vgg16bn",
    "lstm64",
    "ode48",
    "two-tower",
)
# Sizes at which activations dominate and a step takes a fraction of a second on two cores.
_TEXT = {"layers": 4, "width": 64, "heads": 4, "vocabulary": 256, "batch": 4, "length": 128}
_IMAGES = {"layers": 4, "width": 64, "heads": 4, "batch": 4, "side": 64, "patch": 4}
NUMBERS: dict[str, dict[str, int]] = {
    **dict.fromkeys(("gpt2-eager", "gpt2-sdpa", "bert-eager", "bert-sdpa"), _TEXT),
    **dict.fromkeys(("vit-eager", "vit-sdpa"), _IMAGES),
    "resnet50": {"width": 16, "batch": 16, "side": 64},
    "unet": {"width": 16, "groups": 4, "batch": 4, "side": 32},
    "vgg16bn": {"width": 8, "hidden": 64, "batch": 16, "side": 64},
    "lstm64": {"width": 64, "batch": 64},
}
BUDGETS = (1.0, 0.9, 0.7, 0.5, 0.4, "floor")
CLIP_STEPS = 20
KEPT = Path("benchmarks/results/exactness")


def fresh(model: str, size: str) -> tuple[Workload, torch.nn.Module]:
    numbers = NUMBERS.get(model, {}) if size == "bench" else {}
    workload = zoo.get(model).make(size, seed=0, **numbers)
    return workload, workload.step_module()


def aot(module: torch.nn.Module) -> Callable[..., Any]:
    """AOTAutograd's own graph, nothing recomputed."""
    backend = torch_hooks.make_aot_backend(default_partition)
    return torch_hooks.compile_whole(module.forward, backend, 8)


def clipping(step: Step, workload: Workload, limit: float) -> list[float]:
    """Gradient norms, before clipping at `limit`, of some optimizer steps."""
    optimizer = torch.optim.AdamW(step.module.parameters(), lr=1e-3)
    torch.manual_seed(11)
    norms: list[float] = []
    for i in range(CLIP_STEPS):
        optimizer.zero_grad(set_to_none=True)
        step.run(workload.batch(i))
        norm = torch.nn.utils.clip_grad_norm_(step.module.parameters(), limit)
        norms.append(norm.item())
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norms


def run_model(model: str, size: str, budgets: Sequence[float | str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    workload, eager_module = fresh(model, size)
    eager = Step(eager_module, eager_module)
    _, aot_module = fresh(model, size)
    plain = Step(aot_module, aot(aot_module))
    _, aot_eager_module = fresh(model, size)
    aot_eager = torch.compile(aot_eager_module, backend="aot_eager", fullgraph=True, dynamic=False)
    for step in (eager, plain, Step(aot_eager_module, aot_eager)):
        step.run(workload.batch(0))
        step.clear()
    exact_in_aot = compare(eager, plain, workload.batch).equal
    eager_peak = step_peak(eager, workload.batch(0))
    aot_peak = step_peak(plain, workload.batch(0))
    floor_bytes: int | None = None
    for asked in budgets:
        row: dict[str, Any] = {"model": model, "size": size, "budget": asked}
        rows.append(row)
        if asked == "floor" and floor_bytes is None:
            floor_bytes = floor_of(fresh(model, size)[1], workload.batch(0))
        budget: Any = floor_bytes if asked == "floor" else asked
        _, module = fresh(model, size)
        optimized = fxremat.optimize(module, budget=budget)
        step = Step(module, optimized)
        started = time.perf_counter()
        try:
            step.run(workload.batch(0))
        except fxremat.BudgetInfeasible as error:
            row |= {"status": "below the floor", "floor_bytes": error.floor_bytes}
            continue
        first_call_s = time.perf_counter() - started
        step.clear()
        graph = compiled_of(optimized).backend.graphs[0]
        if floor_bytes is None:
            floor_bytes = fxremat.explain(optimized).floor_bytes
        reference = eager if exact_in_aot else plain
        _, again = fresh(model, size)
        _restore(module, again)
        _restore(reference.module, again)
        compared = compare(reference, step, workload.batch)
        peak = step_peak(step, workload.batch(0))
        plan = graph.plan
        row |= {
            "status": "ok",
            "eager_peak_bytes": eager_peak,
            "aot_peak_bytes": aot_peak,
            "baseline_peak_bytes": plan.baseline_peak_bytes,
            "budget_bytes": plan.budget_bytes,
            "planned_peak_bytes": plan.peak_bytes,
            "measured_peak_bytes": peak,
            "within_budget": peak <= plan.budget_bytes,
            "reference": "eager" if exact_in_aot else "AOTAutograd",
            "bitwise": compared.equal,
            "comparison": asdict(compared),
            "predicted_extra": plan.extra_seconds / plan.problem.baseline_cost,
            "bound": plan.solution.lower_bound / plan.problem.baseline_cost - 1,
            "solver_status": str(plan.solution.status),
            "planning_s": graph.planning_s,
            "timings": asdict(plan.timings),
            "dynamo_and_aot_s": first_call_s - graph.planning_s,
        }
        if asked == 1.0:
            ratio = time_ratio(
                Step(aot_eager_module, aot_eager), step, workload.batch, rounds=16, limit_s=60
            )
            row["ratio_to_aot_eager"] = asdict(ratio)
        if asked == 0.5 or (asked == "floor" and not any("clipping_same" in r for r in rows)):
            # Clip at the median norm of an unclipped run, so that about half of the steps fire.
            limit = statistics.median(clipping(reference, workload, float("inf")))
            found: list[list[float]] = []
            for each in (reference, step):
                _restore(each.module, fresh(model, size)[1])
                found.append(clipping(each, workload, limit))
            row["clipping_same"] = found[0] == found[1]
            row["clipping_fired"] = sum(norm > limit for norm in found[0])
            _restore(reference.module, again)
    return rows


def _restore(module: torch.nn.Module, source: torch.nn.Module) -> None:
    """Parameters and buffers as a fresh copy of the model has them."""
    module.load_state_dict(source.state_dict())


def table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(title="Every budget, every bit")
    for heading in ("model", "budget", "baseline MiB", "planned MiB", "measured", "off", "bits"):
        shown.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        if row["status"] != "ok":
            shown.add_row(row["model"], str(row["budget"]), "", "", row["status"], "", "")
            continue
        off = row["measured_peak_bytes"] / row["planned_peak_bytes"] - 1
        shown.add_row(
            row["model"],
            str(row["budget"]),
            f"{row['baseline_peak_bytes'] / 2**20:.2f}",
            f"{row['planned_peak_bytes'] / 2**20:.2f}",
            "within" if row["within_budget"] else "OVER",
            f"{off:+.3%}",
            f"same as {row['reference']}" if row["bitwise"] else "DIFFER",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(zoo.CASES))
    parser.add_argument("--budgets", nargs="*", default=[str(b) for b in BUDGETS])
    parser.add_argument("--size", default="bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("bench-output/exactness"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    budgets = [b if b == "floor" else float(b) for b in args.budgets]
    if args.one:
        for row in run_model(args.models[0], args.size, budgets):
            print_row({**row, **environment(args.threads)})
        return
    args.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for model in args.models:
        cell = ["--one", "--models", model, "--budgets", *args.budgets, "--size", args.size]
        try:
            found = rows_of("benchmarks.exactness", *cell, "--threads", str(args.threads))
        except ProcessFailed as error:
            console.print(f"{model}: {error}", markup=False)
            failed.append(model)
            continue  # what an earlier run found stays
        rows += found
        console.print(table(found))
        path = args.out / f"{model}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    console.print(table(rows))
    if failed:
        raise SystemExit(f"no rows for {', '.join(failed)}: see above")


if __name__ == "__main__":
    main()
