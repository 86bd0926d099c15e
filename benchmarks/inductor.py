"""Inductor's kernels under plans, and what else Inductor can do, against plain torch.compile.

python -m benchmarks.inductor [MODEL ...] [--variants NAME ...] [--size bench] [--layers 2]
python -m benchmarks.inductor [MODEL ...] --compile-time
python -m benchmarks.inductor --kept DIR [--into PAGE]      the tables of kept rows

Each variant is compiled in a process of its own, with plain `torch.compile` beside it on a copy of
the model; fxremat's, which share their kernels, in one. Their steps take turns. `of_plain_time` is
the median over rounds of a step's processor time over that of the plain one in the same round, with
quartiles. Bits are of losses, gradients, buffers and the random state after three steps, gradients'
error is the norm of the difference over the norm. Variants:

- kernels: fxremat with nothing to recompute; 0.7: fxremat within that share of the plain peak;
  floor: within the least that it reaches.
- options 0.7: `fxremat.inductor_options` within it.
- torch 0.5: `activation_memory_budget` at that ratio.
- compile(checkpoint), checkpoint(compile): `torch.utils.checkpoint` around each block, compiled
  with the whole model, or around blocks that are compiled one by one. selective: the former, with
  matrix products and attention kept.

`--compile-time` measures, in fresh processes with empty caches, the processor time up to the end of
the first step, of all compilers that run for it: plain, fxremat's kernels, and another budget for
them.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fxremat
from benchmarks import records, zoo
from benchmarks.cuda.machine import commit
from benchmarks.marks import show
from benchmarks.measure import clock_of, relative_error
from benchmarks.methods import checkpoint as checkpoints
from benchmarks.methods.base import Task
from benchmarks.methods.torch_budget import budgeted, inductor_backend
from benchmarks.own_process import child_environment, print_row, rows_of
from benchmarks.zoo.case import LossModule, Workload

OUT = Path("benchmarks/results/inductor")
MODELS = (
    "gpt2-eager",
    "gpt2-sdpa",
    "bert-sdpa",
    "llama-sdpa",
    "t5",
    "vit-sdpa",
    "resnet50",
    "unet",
    "vgg16bn",
    "lstm64",
    "ode48",
    "mamba",
    "two-tower",
)
TORCHS = tuple(f"torch {ratio}" for ratio in (0.9, 0.75, 0.5, 0.35, 0.2, 0.05))
BY_HAND = ("compile(checkpoint)", "checkpoint(compile)", "selective")
OURS = ("kernels", "0.7", "0.5", "0.4", "floor")
VARIANTS = (*OURS, "options 0.7", *TORCHS, *BY_HAND)
STEPS = 3
ROUNDS = 9
BEGIN, END = "<!-- inductor: begin -->", "<!-- inductor: end -->"

Make = Callable[[Workload, LossModule], Any]


def ours(budget: int | float | str) -> Make:
    return lambda _, m: fxremat.optimize(m, budget=budget, executor="inductor", preset="thorough")


def least_bytes(workload: Workload) -> int:
    """The least that a step of kernels is planned within."""
    try:
        ours("1B")(workload, workload.step_module())(*workload.batch(0))
    except fxremat.BudgetInfeasible as error:
        return error.floor_bytes
    return 1


def make(variant: str, plain_bytes: int) -> Make:
    """What makes the step of a variant, given a copy of the model and plain's measured peak.

    For the floor, it is given the least that there is.
    """
    method, _, point = variant.rpartition(" ")

    def wrapped(wrap: Callable[[Task], Any]) -> Make:
        # A backend of its own, so that Dynamo doesn't take plain's graph for it.
        backend = budgeted(inductor_backend(), 1.0)
        return lambda w, m: torch.compile(wrap(Task(w, m)).call, backend=backend)

    def blocks_by_themselves(workload: Workload, module: LossModule) -> Any:
        for block in checkpoints.segments(Task(workload, module), 1):
            compiled = torch.compile(block.forward)
            block.forward = functools.partial(  # type: ignore[method-assign]
                checkpoint, compiled, use_reentrant=False
            )
        return module

    if method == "torch":
        backend = budgeted(inductor_backend(), float(point))
        return lambda _, m: torch.compile(m, backend=backend)
    if method == "options":
        options = fxremat.inductor_options(int(float(point) * plain_bytes))
        return lambda _, m: torch.compile(m, options=options)
    named: dict[str, Make] = {
        "plain": lambda _, m: torch.compile(m),
        "kernels": ours(1.0),
        "floor": ours(plain_bytes),
        "compile(checkpoint)": wrapped(checkpoints.per_block),
        "selective": wrapped(checkpoints.selective),
        "checkpoint(compile)": blocks_by_themselves,
    }
    return named[variant] if variant in named else ours(int(float(variant) * plain_bytes))


@dataclass(frozen=True)
class Variant:
    """A compiled copy of a model: what it left and took. `seconds` are filled round by round."""

    name: str
    workload: Workload
    module: nn.Module
    call: Any
    bits: str
    gradients: list[torch.Tensor | None]
    peak_bytes: int
    first_s: float
    seconds: list[float] = field(default_factory=list[float])

    @staticmethod
    def of(name: str, workload: Workload, make: Make) -> Variant:
        """Three steps from one seed, then the peak of a fourth."""
        module = workload.step_module()
        digest = hashlib.sha256()
        torch.manual_seed(7)
        began = processor_time()
        call = make(workload, module)
        first_s = 0.0
        gradients: list[torch.Tensor | None] = []
        for index in range(STEPS):
            module.zero_grad()
            loss = call(*workload.batch(index))
            loss.backward()
            first_s = first_s or processor_time() - began
            gradients = [each.grad for each in module.parameters()]
            left = [loss.detach(), *module.buffers(), *random_states(workload.device)]
            left += [each for each in gradients if each is not None]
            for tensor in left:
                flat = tensor.cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().tobytes())
        module.zero_grad()
        batch = workload.batch(0)
        step = lambda: call(*batch).backward()  # noqa: E731
        peak = fxremat.measure_peak(step, device=workload.device).peak_bytes
        bits = digest.hexdigest()[:16]
        return Variant(name, workload, module, call, bits, gradients, peak, first_s)

    def time_step(self) -> None:
        """By the processor's time on the CPU, by the wall's around a device's."""
        batch, clock = self.workload.batch(0), clock_of(self.workload.device)
        self.module.zero_grad()
        began = clock()
        self.call(*batch).backward()
        self.seconds.append(clock() - began)


def random_states(device: str) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    return states if device == "cpu" else [*states, torch.cuda.get_rng_state(device)]


def processor_time() -> float:
    """Of this process and of what it started and waited for."""
    taken = os.times()
    return taken.user + taken.system + taken.children_user + taken.children_system


def measure(
    model: str, variants: Sequence[str], size: str, layers: int | None
) -> list[dict[str, Any]]:
    """The rows of plain and of some variants, in this process."""

    def workload() -> Workload:
        return zoo.get(model).make(size, **({} if layers is None else {"layers": layers}))

    plain = Variant.of("plain", workload(), make("plain", 0))
    all_, below = [plain], list[dict[str, Any]]()
    for variant in variants:
        try:
            within = least_bytes(workload()) if variant == "floor" else plain.peak_bytes
            all_.append(Variant.of(variant, workload(), make(variant, within)))
        except fxremat.BudgetInfeasible as error:
            row = {"variant": variant, "status": "below the floor"}
            below.append({**row, "floor_bytes": error.floor_bytes})
    kernels = next((each.bits for each in all_ if each.name == "kernels"), None)
    for _ in range(ROUNDS):
        for each in all_:
            each.time_step()
    return [row_of(each, plain, kernels) for each in all_] + below


def row_of(each: Variant, plain: Variant, kernels_bits: str | None) -> dict[str, Any]:
    """A variant beside plain, whose steps took turns with its own."""
    ratios = [a / b for a, b in zip(each.seconds, plain.seconds, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    row: dict[str, Any] = {
        "variant": each.name,
        "status": "ok",
        "peak_bytes": each.peak_bytes,
        "of_plain_peak": each.peak_bytes / plain.peak_bytes,
        "of_plain_time": middle,
        "of_plain_time_quartiles": [low, high],
        "step_s": statistics.median(each.seconds),
        "has_plain_bits": each.bits == plain.bits,
        "gradient_error": relative_error(plain.gradients, each.gradients),
    }
    if hasattr(each.call, "__fxremat__"):
        about = fxremat.explain(each.call)
        row["has_kernels_bits"] = None if kernels_bits is None else each.bits == kernels_bits
        row["budget_bytes"] = about.budget_bytes
        row["planned_peak_bytes"] = about.planned_peak_bytes
        row["predicted_extra"] = about.extra_seconds / about.baseline_seconds
        row["predicted_bound"] = about.lower_bound_seconds / about.baseline_seconds
    return row


def measure_compilation(
    model: str, variants: Sequence[str], size: str, layers: int | None
) -> list[dict[str, Any]]:
    """The processor time of a first step; by our kernels under 0.7 and, after that, 0.5."""
    numbers = {} if layers is None else {"layers": layers}

    def first_step(make: Make) -> float:
        workload = zoo.get(model).make(size, **numbers)
        module = workload.step_module()
        began = processor_time()
        make(workload, module)(*workload.batch(0)).backward()
        return processor_time() - began

    if variants == ["plain"]:
        return [{"variant": "compile plain", "first_step_s": first_step(make("plain", 0))}]

    def kept_within(share: float) -> Make:
        return lambda _, m: (
            kept.append(fxremat.optimize(m, budget=share, executor="inductor")) or kept[-1]
        )

    kept = list[Any]()
    return [
        {"variant": f"compile {each}", "first_step_s": first_step(kept_within(share))}
        for each, share in (("kernels at 0.7", 0.7), ("kernels then at 0.5", 0.5))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--size", choices=("tiny", "quick", "bench"), default="bench")
    parser.add_argument("--layers", type=int, help="another depth than the size has")
    parser.add_argument("--compile-time", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--kept", type=Path, help="show the rows of this folder, measure nothing")
    parser.add_argument("--into", type=Path, help="show them in this page, between its two marks")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kept:
        show(tables(list(records.load(args.kept).values())), args.into, BEGIN, END)
        return
    if args.one:
        torch.set_num_threads(1)
        found = measure_compilation if args.compile_time else measure
        for row in found(args.models[0], args.variants, args.size, args.layers):
            print_row(row)
        return
    os.environ.update(child_environment(1) | {"HF_HUB_OFFLINE": "1"})
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    about = {
        **records.environment(1),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks.inductor", *records.told(sys.argv[1:])]),
    }
    shared = [variant for variant in args.variants if variant in OURS or _is_share(variant)]
    alone = [shared, *([each] for each in args.variants if each not in shared)]
    alone = [["plain"], ["kernels"]] if args.compile_time else [some for some in alone if some]
    size = args.size if args.layers is None else f"{args.size}, {args.layers} layers"
    asked = ["--size", args.size, *([] if args.layers is None else ["--layers", str(args.layers)])]
    asked += ["--compile-time"] if args.compile_time else []
    for model in args.models:
        cache = tempfile.mkdtemp()
        seen = set[str]()
        for some in alone:
            if args.compile_time:
                shutil.rmtree(cache)
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            for row in rows_of("benchmarks.inductor", model, *asked, "--variants", *some, "--one"):
                if row["variant"] in seen:
                    continue
                seen.add(row["variant"])
                key = f"{model}/{size}/{row['variant']}"
                row = {"key": key, "model": model, "size": size, **row, **about}
                records.append(args.out, row)
                print(line(row), flush=True)
        shutil.rmtree(cache, ignore_errors=True)
    records.compact(args.out)


def _is_share(variant: str) -> bool:
    return variant.replace(".", "", 1).isdigit()


def line(row: dict[str, Any]) -> str:
    """What a reader wants to know of a row first."""
    name = f"{row['model']} {row['variant']}"
    if "first_step_s" in row:
        return f"{name}: {row['first_step_s']:.1f} s to the end of the first step"
    if row["status"] != "ok":
        return f"{name}: below the floor of {row['floor_bytes']:,} B"
    bits = "its" if row["has_plain_bits"] else f"others, off by {row['gradient_error']:.1e}"
    text = (
        f"{name}: peak {row['of_plain_peak']:.3f}, time {row['of_plain_time']:.3f} "
        f"{row['of_plain_time_quartiles']} of torch.compile's, bits {bits}"
    )
    if "planned_peak_bytes" not in row:
        return text
    return (
        f"{text}, measured / planned {row['peak_bytes'] / row['planned_peak_bytes']:.5f}, "
        f"predicted {100 * row['predicted_extra']:.1f} % more"
    )


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """A table of steps a size, what they come to, and one of compilations."""
    text = list[str]()
    steps = [row for row in rows if "first_step_s" not in row and row["variant"] != "plain"]
    for size in dict.fromkeys(row["size"] for row in steps):
        text += [f"At the size {size!r}:", ""]
        text += [
            "| model | variant | peak | of its budget | time | predicted | at least | bits |",
            "|---|---|---:|---:|---:|---:|---:|---|",
        ]
        here = [row for row in steps if row["size"] == size]
        for model in dict.fromkeys(row["model"] for row in here):
            own = sorted((row for row in here if row["model"] == model), key=_order)
            text += [
                f"| {'' if k else model} | {' | '.join(_cells(row))} |" for k, row in enumerate(own)
            ]
        text += ["", *_medians(here), ""]
    compiled = [row for row in rows if "first_step_s" in row]
    if compiled:
        text += ["| model | compiled | seconds | of plain |", "|---|---|---:|---:|"]
        plain_s = {
            (row["model"], row["size"]): row["first_step_s"]
            for row in compiled
            if row["variant"] == "compile plain"
        }
        for row in compiled:
            seconds = row["first_step_s"]
            share = seconds / plain_s[row["model"], row["size"]]
            name = row["variant"].removeprefix("compile ")
            text.append(f"| {row['model']}, {row['size']} | {name} | {seconds:.1f} | {share:.2f} |")
    return "\n".join(text).rstrip()


def _order(row: dict[str, Any]) -> tuple[int, float]:
    """Ours from the largest budget to the floor, then the peers in their order."""
    name = row["variant"]
    if name in OURS or _is_share(name):
        return 0, -row.get("of_plain_peak", -0.01)
    return 1 + VARIANTS.index(name), 0.0


def _cells(row: dict[str, Any]) -> list[str]:
    name = row["variant"].replace("kernels", "nothing recomputed")
    if row["status"] != "ok":
        return [name, "below the floor", "", "", "", "", ""]
    error = row["gradient_error"]
    bits = "the same" if row["has_plain_bits"] else f"others, {error:.0e}"
    if row.get("has_kernels_bits") is False:
        bits += ", and not the kernels'"
    time_text = f"{row['of_plain_time']:.3f}"
    if "planned_peak_bytes" not in row:
        return [name, f"{row['of_plain_peak']:.3f}", "", time_text, "", "", bits]
    kept = row["peak_bytes"] / row["budget_bytes"]
    return [
        name,
        f"{row['of_plain_peak']:.3f}",
        f"{kept:.4f}",
        time_text,
        f"{1 + row['predicted_extra']:.3f}",
        # Of a plan that needs its writes in place there is none.
        f"{1 + row['predicted_bound']:.3f}" if math.isfinite(row["predicted_bound"]) else "",
        bits,
    ]


def _medians(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Over models, of the times of our budgets that more than two models have."""
    said = list[str]()
    for variant in OURS:
        times = [
            r["of_plain_time"] for r in rows if r["variant"] == variant and r["status"] == "ok"
        ]
        if len(times) > 2:
            name = variant.replace("kernels", "nothing recomputed")
            said.append(f"{name} {statistics.median(times):.3f} ({len(times)} models)")
    return [f"Medians over models: {', '.join(said)}."] if said else []


if __name__ == "__main__":
    main()
