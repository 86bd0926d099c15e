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
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch._functorch.partitioners import default_partition

import fxremat
from benchmarks import zoo
from benchmarks.counters import step_peaks
from benchmarks.measure import Comparison, Step, compare, step_peak, time_ratio
from benchmarks.methods.fxremat import floor_of
from benchmarks.own_process import ProcessFailed, print_row, rows_of
from benchmarks.records import environment
from benchmarks.zoo import Workload
from fxremat import torch_hooks
from fxremat.frontend.compiled import compiled_of

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


@dataclass(frozen=True)
class Setting:
    """A model as it is checked: its size, where it runs, and under which autocast, if any."""

    model: str
    size: str = "bench"
    numbers: Mapping[str, int] = field(default_factory=dict)
    device: str = "cpu"
    autocast: torch.dtype | None = None


def fresh(setting: Setting) -> tuple[Workload, torch.nn.Module]:
    workload = zoo.get(setting.model).make(setting.size, seed=0, **setting.numbers)
    if setting.device != "cpu" or setting.autocast is not None:
        workload = workload.to(setting.device, autocast=setting.autocast)
    return workload, workload.step_module()


def aot(module: torch.nn.Module) -> Callable[..., Any]:
    """AOTAutograd's own graph, nothing recomputed."""
    backend = torch_hooks.make_aot_backend(default_partition, torch_hooks.boxed_executor)
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


@dataclass(frozen=True)
class Untouched:
    """What optimized steps are held against: eager, and AOTAutograd's graph, nothing recomputed.

    `exact_in_aot`: both are the same bits, so that nothing but eager's will do.
    `eager_repeats`: eager equals itself, which on CUDA takes deterministic kernels; else
    `eager_error` says by how much two of its runs differ.
    """

    setting: Setting
    workload: Workload
    eager: Step
    plain: Step
    exact_in_aot: bool
    eager_repeats: bool
    eager_error: float
    eager_peak_bytes: int
    aot_peak_bytes: int


def untouched(setting: Setting) -> Untouched:
    workload, eager_module = fresh(setting)
    eager = Step(eager_module, eager_module)
    _, aot_module = fresh(setting)
    plain = Step(aot_module, aot(aot_module))
    for step in (eager, plain):
        step.run(workload.batch(0))
        step.clear()
    device = setting.device
    repeated = None
    if device != "cpu":
        _, again = fresh(setting)
        _restore(again, eager_module)
        repeated = compare(eager, Step(again, again), workload.batch, device=device)
        _restore(eager_module, fresh(setting)[1])
        _restore(aot_module, eager_module)
    return Untouched(
        setting=setting,
        workload=workload,
        eager=eager,
        plain=plain,
        exact_in_aot=compare(eager, plain, workload.batch, device=device).equal,
        eager_repeats=repeated is None or repeated.equal,
        eager_error=0.0 if repeated is None else repeated.relative_error,
        eager_peak_bytes=step_peak(eager, workload.batch(0), device),
        aot_peak_bytes=step_peak(plain, workload.batch(0), device),
    )


def run_model(model: str, size: str, budgets: Sequence[float | str]) -> list[dict[str, Any]]:
    known = untouched(Setting(model, size, NUMBERS.get(model, {}) if size == "bench" else {}))
    rows: list[dict[str, Any]] = []
    floor_bytes: int | None = None
    clipped = False
    for asked in budgets:
        clip = asked == 0.5 or (asked == "floor" and not clipped)
        row = run_budget(known, asked, floor_bytes, clip=clip)
        floor_bytes = row.get("floor_bytes", floor_bytes)
        clipped |= "clipping_same" in row
        rows.append(row)
    return rows


def run_budget(
    known: Untouched, asked: float | str, floor_bytes: int | None = None, *, clip: bool
) -> dict[str, Any]:
    """One budget's row; `floor_bytes` is the smallest that can be met, where that is known.

    `clip` also compares clipped optimizer steps.
    """
    setting, workload = known.setting, known.workload
    row: dict[str, Any] = {"model": setting.model, "size": setting.size, "budget": asked}
    if asked == "floor" and floor_bytes is None:
        floor_bytes = floor_of(fresh(setting)[1], workload.batch(0))
    budget: Any = floor_bytes if asked == "floor" else asked
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return _run_budget(known, row, budget, floor_bytes, said, clip=clip)


def _run_budget(
    known: Untouched,
    row: dict[str, Any],
    budget: Any,
    floor_bytes: int | None,
    said: list[warnings.WarningMessage],
    *,
    clip: bool,
) -> dict[str, Any]:
    setting, workload, device = known.setting, known.workload, known.setting.device
    _, module = fresh(setting)
    optimized = fxremat.optimize(module, budget=budget)
    step = Step(module, optimized)
    started = time.perf_counter()
    try:
        step.run(workload.batch(0))
    except fxremat.BudgetInfeasible as error:
        return {**row, "status": "below the floor", "floor_bytes": error.floor_bytes}
    first_call_s = time.perf_counter() - started
    step.clear()
    graph = compiled_of(optimized).backend.history.graphs[0]
    if floor_bytes is None:
        floor_bytes = fxremat.floor(optimized)
    reference, (_, again) = known.eager, fresh(setting)
    compared = compared_anew(reference, step, known, again)
    if not compared.equal and not known.exact_in_aot:
        # fxremat's dropout has eager's bits where AOTAutograd's hasn't, so eager comes first.
        to_graph = compared_anew(known.plain, step, known, again)
        nearer = to_graph.relative_error < compared.relative_error
        if to_graph.equal or (nearer and not known.eager_repeats):
            reference, compared = known.plain, to_graph
    peaks = step_peaks(step, workload.batch(0), device)
    (graph,) = compiled_of(optimized).backend.history.graphs  # it may have been planned again
    plan = graph.plan
    row |= {
        "status": "ok",
        "floor_bytes": floor_bytes,
        "eager_peak_bytes": known.eager_peak_bytes,
        "aot_peak_bytes": known.aot_peak_bytes,
        "baseline_peak_bytes": plan.baseline_peak_bytes,
        "budget_bytes": plan.budget_bytes,
        "planned_peak_bytes": plan.peak_bytes,
        "measured_peak_bytes": peaks.allocated_bytes,
        "within_budget": peaks.allocated_bytes <= plan.budget_bytes,
        "reference": "eager" if reference is known.eager else "AOTAutograd",
        "bitwise": compared.equal,
        "comparison": asdict(compared),
        "predicted_extra": plan.extra_seconds / plan.problem.baseline_cost,
        "bound": plan.solution.lower_bound / plan.problem.baseline_cost - 1,
        "solver_status": str(plan.solution.status),
        "planning_s": graph.planning_s,
        "timings": dict(graph.seconds),
        "dynamo_and_aot_s": first_call_s - graph.planning_s,
    }
    if device != "cpu":
        row |= {
            "requested_peak_bytes": peaks.requested_bytes,
            "said_over": any("by the allocator's count" in str(each.message) for each in said),
            "eager_repeats": known.eager_repeats,
            "eager_error": known.eager_error,
        }
    if row["budget"] == 1.0:
        _, compiled = fresh(setting)
        aot_eager = torch.compile(compiled, backend="aot_eager", fullgraph=True, dynamic=False)
        theirs = Step(compiled, aot_eager)
        theirs.run(workload.batch(0))
        ratio = time_ratio(theirs, step, workload.batch, rounds=16, device=device, limit_s=60)
        row["ratio_to_aot_eager"] = asdict(ratio)
    if clip:
        # Clip at the median norm of an unclipped run, so that about half of the steps fire.
        limit = statistics.median(clipping(reference, workload, float("inf")))
        found: list[list[float]] = []
        for each in (reference, step):
            _restore(each.module, fresh(setting)[1])
            found.append(clipping(each, workload, limit))
        row["clipping_same"] = found[0] == found[1]
        row["clipping_fired"] = sum(norm > limit for norm in found[0])
        _restore(reference.module, again)
    return row


def compared_anew(
    reference: Step, step: Step, known: Untouched, source: torch.nn.Module
) -> Comparison:
    """Both from the same parameters and buffers on."""
    _restore(step.module, source)
    _restore(reference.module, source)
    return compare(reference, step, known.workload.batch, device=known.setting.device)


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
