"""The cells of each part, by device: what is checked on CUDA, and the few of them a CPU can run.

Which process runs them is `worker`'s business.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks import broken
from benchmarks.broken import check
from benchmarks.cell import Cell, run
from benchmarks.cuda import estimate_rows, inductor_rows, loop_rows
from benchmarks.cuda.job import Job, Rows
from benchmarks.cuda.needs import needs_of
from benchmarks.exactness import Setting, Untouched, run_budget, untouched
from benchmarks.runner import Waiting, resolve

# Two of the six need only torch. Layers are few, so that plans take seconds; tensors are large, so
# that kernels rather than launches take the time. A step is to hold some GiB at most.
GPT2 = {"layers": 6, "width": 768, "heads": 12, "vocabulary": 8192, "batch": 16, "length": 512}
TOWERS = {"layers": 6, "width": 512, "vocabulary": 8192, "batch": 256, "length": 64}
VGG = {"width": 64, "hidden": 1024, "pooled": 1, "batch": 32, "side": 224}
RESNET = {"width": 64, "shallow": 0, "batch": 64, "side": 160}
LLAMA = {"layers": 6, "width": 1024, "heads": 16, "vocabulary": 8192, "batch": 8, "length": 512}
UNET = {"width": 64, "levels": 3, "resnets": 2, "groups": 32, "batch": 16, "side": 64}
EXACT_SETTINGS = (
    Setting("two-tower", "cuda", TOWERS, "cuda"),
    Setting("gpt2-sdpa", "cuda", GPT2, "cuda", torch.bfloat16),
    Setting("vgg16bn", "cuda", VGG, "cuda"),
    Setting("resnet50", "cuda", RESNET, "cuda", torch.bfloat16),
    Setting("llama-sdpa", "cuda", LLAMA, "cuda", torch.bfloat16),
    Setting("unet", "cuda", UNET, "cuda"),
)
EXACT_BUDGETS = (0.7, 0.5, 0.4, "floor")
# A plain stack of convolutions needs more than half of its peak whatever is recomputed.
OWN_BUDGETS: Mapping[str, tuple[float | str, ...]] = {"vgg16bn": (0.8, 0.7, 0.65, "floor")}
SMALL_SETTINGS = (Setting("two-tower", "tiny"),)
SMALL_BUDGETS = (0.7,)

# Steps that fall into several graphs: our own, then libraries' models.
GRAPHS = ("printed-mean", "checked-blocks", "hard-pixels", "pondering", "logged-norms")
GRAPHS += ("longformer", "wavlm-ctc", "detr", "mixtral-router", "rt-detr", "dice-unet")
GRAPHS_BUDGET = 0.6

BENCH_NUMBERS = {"gpt2-sdpa": GPT2, "two-tower": TOWERS, "vgg16bn": VGG, "resnet50": RESNET}
BENCH_METHODS = (
    ("eager", ""),
    ("checkpoint-block", ""),
    ("fxremat", "0.5"),
    ("fxremat", "=checkpoint-block"),
    ("torch-budget", "0.5"),
    ("fxremat", "1"),
)
# At the size that was published: a billion parameters, 8,192 tokens a step.
LARGE = ("llama-sdpa",)
LARGE_METHODS = tuple(pair for pair in BENCH_METHODS if pair != ("fxremat", "1"))
BENCH_EFFORT = {"rounds": 20, "compare_steps": 2, "timing_limit_s": 8, "batch_tries": 6}
# The largest batch in the bytes that eager takes for the first.
BATCH_MODEL = "gpt2-sdpa"
BATCH_METHODS = ("checkpoint-block", "fxremat")
# In float32, whose kernels an estimate knows best; GPT-2 also by its attention.
ESTIMATED = {name: BENCH_NUMBERS[name] for name in ("gpt2-sdpa", "two-tower", "vgg16bn")}
SMALL_MODELS: Mapping[str, Mapping[str, int]] = {"two-tower": {}}
SMALL_CELLS = (Cell("two-tower", "fxremat", "0.7", size="tiny"),)
SMALL_EFFORT = {"rounds": 4, "compare_steps": 2, "timing_limit_s": 5}


def jobs_of(part: str, device: str) -> list[Job]:
    """The jobs of the parts that aren't pytest's."""
    small = torch.device(device).type == "cpu"
    if part == "exactness":
        settings = SMALL_SETTINGS if small else EXACT_SETTINGS
        settings = tuple(replace(setting, device=device) for setting in settings)
        return list(exactness_jobs(settings, SMALL_BUDGETS if small else EXACT_BUDGETS))
    if part == "graphs":
        names, size = (GRAPHS[:1], "tiny") if small else (GRAPHS, "bench")
        return [graphs_job(name, size, device) for name in names]
    if part == "inductor":
        models, size = (SMALL_MODELS, "tiny") if small else (BENCH_NUMBERS, "cuda")
        return list(inductor_rows.jobs(models, device, size))
    if part == "loops":
        return list(loop_rows.jobs(device))
    if part == "estimate":
        models, size = (SMALL_MODELS, "tiny") if small else (ESTIMATED, "cuda")
        return list(estimate_rows.jobs(models, device, size))
    if part == "bench":
        cells = SMALL_CELLS if small else tuple(bench_cells(device))
        effort = SMALL_EFFORT if small else BENCH_EFFORT
        jobs = [bench_job(cell, effort) for cell in cells]
        return jobs if small else [*jobs, *batch_jobs(device)]
    raise ValueError(f"no part {part!r}")


def exactness_jobs(settings: Sequence[Setting], budgets: Sequence[float | str]) -> Iterator[Job]:
    """A job a budget; a model's untouched steps are made by the first of its jobs that runs."""
    made: dict[str, Untouched] = {}  # of one model at a time: they hold the device's memory
    for setting in settings:
        precision = str(setting.autocast or torch.float32).removeprefix("torch.")
        group = f"{setting.model}|{precision}"
        own = OWN_BUDGETS.get(setting.model, budgets) if setting.size == "cuda" else budgets
        for i, budget in enumerate(own):
            run_it = functools.partial(exactness_row, made, group, setting, budget, i == 1)
            yield Job(f"{group}|{budget}", run_it, group, needs_of(setting.model))


def exactness_row(
    made: dict[str, Untouched],
    group: str,
    setting: Setting,
    budget: float | str,
    clip: bool,
    rows: Rows,
) -> Mapping[str, Any]:
    """`clip`: also clipped optimizer steps, at one budget of a model."""
    if group not in made:
        made.clear()
        made[group] = untouched(setting)
    floors = [row.get("floor_bytes") for key, row in rows.items() if key.startswith(f"{group}|")]
    floor_bytes = next((floor for floor in floors if floor is not None), None)
    return run_budget(made[group], budget, floor_bytes, clip=clip)


def graphs_job(name: str, size: str, device: str) -> Job:
    run_it = functools.partial(graphs_row, name, size, device)
    package = broken.get(name).source.partition(" ")[0]
    needs = (package,) if package == "transformers" else ()
    return Job(f"{name}|{GRAPHS_BUDGET}", run_it, name, needs)


def graphs_row(name: str, size: str, device: str, _rows: Rows) -> Mapping[str, Any]:
    """A broken step's, in the words of this kit: what fxremat refuses there counts as failed."""
    row = check.check(broken.get(name), GRAPHS_BUDGET, size, device=device)
    if row["status"] in (check.REFUSED, check.CRASH):
        return {**row, "status": "failed"}
    to_eager, to_graphs = row["against_eager"], row["against_reference"]
    found = {
        "status": "ok",
        "bitwise": to_eager is None or to_graphs is None,
        "reference": "eager" if to_eager is None else "Dynamo's graphs",
        "comparison": {"relative_error": row.get("error", 0.0)},
    }
    return {**row, **found}


def bench_cells(device: str) -> Iterator[Cell]:
    for model, numbers in BENCH_NUMBERS.items():
        for method, point in BENCH_METHODS:
            if point == "0.5" and method == "fxremat":
                point = str(OWN_BUDGETS.get(model, EXACT_BUDGETS)[2 if model in OWN_BUDGETS else 1])
            yield Cell(model, method, point, size="cuda", numbers=numbers, device=device)
    for model in LARGE:
        for method, point in LARGE_METHODS:
            yield Cell(model, method, point, size="cuda", device=device)


def bench_job(cell: Cell, effort: Mapping[str, Any]) -> Job:
    return Job(cell.key, functools.partial(bench_row, cell, effort), cell.key, needs_of(cell.model))


def bench_row(cell: Cell, effort: Mapping[str, Any], rows: Rows) -> Mapping[str, Any]:
    try:
        found = resolve(cell, rows)
    except Waiting as error:
        return {**asdict(cell), "status": "unavailable", "reason": str(error)}
    row = run(found, effort)
    facts = {k: v for k, v in row.get("facts", {}).items() if k != "predicted_timeline"}
    return {**asdict(found), **row, "facts": facts}


def batch_jobs(device: str) -> Iterator[Job]:
    numbers = BENCH_NUMBERS[BATCH_MODEL]
    eager = Cell(BATCH_MODEL, "eager", size="cuda", numbers=numbers, device=device)
    for method in BATCH_METHODS:
        cell = replace(eager, method=method, kind="batch")
        run_it = functools.partial(batch_row, cell, eager.key)
        yield Job(cell.key, run_it, cell.key, needs_of(BATCH_MODEL))


def batch_row(cell: Cell, eager: str, rows: Rows) -> Mapping[str, Any]:
    row = rows.get(eager, {})
    if "peak_bytes" not in row:
        reason = "its room is eager's measured peak, and that row has none"
        return {**asdict(cell), "status": "unavailable", "reason": reason}
    found = replace(cell, budget_bytes=int(row["peak_bytes"]))
    return {**asdict(found), **run(found, BENCH_EFFORT)}
