"""The budget whose peak rises as it falls: torch's `activation_memory_budget` beside fxremat.

    python -m benchmarks.budget_curve                        # op by op, in one process
    python -m benchmarks.budget_curve --executor inductor    # in Inductor's kernels: takes longer

A Llama of 32 layers, width 256, MLP 688, in two sequences of 256 tokens: the model of
github.com/pytorch/pytorch/issues/197838, in a quarter of its batch. torch is given a ratio of what
it would save, fxremat a share of the plain step's peak, in bytes. The plain step is eager's, or
plain `torch.compile`'s. Peaks are the allocator's. Times are medians over rounds of a step's
processor time over that of the plain step in the same round. Gradients are compared with the plain
step's, bit for bit; where they differ, as the norm of the difference over the norm.

Under Inductor each variant is compiled in a process of its own, with the plain one beside it.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import fxremat
from benchmarks import records
from benchmarks.cuda.machine import commit
from benchmarks.marks import show
from benchmarks.measure import Step, relative_error, step_peak
from benchmarks.methods.torch_budget import budgeted, eager_backend, inductor_backend
from benchmarks.own_process import child_environment, print_row, rows_of

LAYERS, WIDTH, HEADS, MLP, WORDS, TEXTS, LENGTH = 32, 256, 8, 688, 1024, 2, 256
RATIOS = (0.5, 0.35, 0.2, 0.1, 0.05)
PLAIN, LAYERED = "plain", "checkpoint per layer"
SHARES = (0.5, 0.4, LAYERED)
MEBI = 1 << 20
BEGIN, END = "<!-- budget curve: begin -->", "<!-- budget curve: end -->"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.RMSNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.before_mlp = nn.RMSNorm(WIDTH)
        self.gate = nn.Linear(WIDTH, MLP, bias=False)
        self.up = nn.Linear(WIDTH, MLP, bias=False)
        self.down = nn.Linear(MLP, WIDTH, bias=False)

    def forward(self, x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.before_attention(x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = heads.transpose(1, 3).unbind(2)
        q, k = rotated(q, turn), rotated(k, turn)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        h = self.before_mlp(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def rotated(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Rotary positions: pairs of features turned by an angle that grows with the position."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = turn
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Llama(nn.Module):
    """The model with its loss inside."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(layers))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        half = WIDTH // HEADS // 2
        angles = torch.outer(torch.arange(LENGTH), 10_000.0 ** -(torch.arange(half) / half))
        self.register_buffer("turn", torch.stack([angles.cos(), angles.sin()]))
        self.run: Callable[..., torch.Tensor] = lambda layer, *args: layer(*args)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        for layer in self.layers:
            x = self.run(layer, x, self.turn)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


Call = Callable[..., torch.Tensor]
Peaks = dict[str, int]
Make = Callable[[Llama, Peaks], Call]


def checkpointed(model: Llama) -> Llama:
    """Each layer drops what it computed inside."""
    model.run = functools.partial(checkpoint, use_reentrant=False)
    return model


def make(variant: str, executor: str) -> Make:
    """What makes the step of a variant, given a model and the peaks measured so far."""
    compiled = functools.partial(torch.compile, fullgraph=True, dynamic=False)
    is_eager = executor == "eager"
    method, _, point = variant.partition(" ")
    if variant == PLAIN:
        return lambda model, _: model if is_eager else compiled(model)
    if variant == LAYERED:
        return lambda model, _: checkpointed(model) if is_eager else compiled(checkpointed(model))
    if method == "torch":
        backend = budgeted(eager_backend() if is_eager else inductor_backend(), float(point))
        return lambda model, _: compiled(model, backend=backend)

    def ours(model: Llama, peaks: Peaks) -> Call:
        share = point.removeprefix("at ")
        budget = peaks[LAYERED] if share == LAYERED else int(float(share) * peaks[PLAIN])
        return fxremat.optimize(model, budget=budget, executor=executor)

    return ours


def measure(
    executor: str, names: list[str], layers: int, rounds: int, peaks: Peaks
) -> Iterator[dict[str, Any]]:
    """The rows of some variants, in this process; the plain one is the first of them."""
    torch.manual_seed(0)
    model = Llama(layers)
    batch = (torch.randint(WORDS, (TEXTS, LENGTH)),)
    steps, seconds = dict[str, Step](), dict[str, list[float]]()
    gradients: list[torch.Tensor | None] = []
    rows = dict[str, dict[str, Any]]()
    for name in names:
        own = copy.deepcopy(model)
        began = time.process_time()
        try:
            step = Step(own, make(name, executor)(own, peaks))
            step.run(batch)
        except fxremat.BudgetInfeasible as error:
            rows[name] = {"status": "below the floor", "floor_bytes": error.floor_bytes}
            continue
        first_s = time.process_time() - began
        found = [each.grad for each in own.parameters()]
        gradients = gradients or found
        error = relative_error(gradients, found)
        del found
        peaks = {**peaks, name: step_peak(step, batch)}
        steps[name], seconds[name] = step, []
        rows[name] = {
            "status": "ok",
            "peak_bytes": peaks[name],
            "relative_error": error,
            "first_step_s": first_s,
        }
    for _ in range(rounds):
        for name, step in steps.items():
            step.clear()
            began = time.process_time()
            step.run(batch)
            seconds[name].append(time.process_time() - began)
            step.clear()
    for name, row in rows.items():
        if name in steps:
            ratios = [a / b for a, b in zip(seconds[name], seconds[PLAIN], strict=True)]
            row["of_plain_time"] = statistics.median(ratios)
            row["of_plain_time_range"] = [min(ratios), max(ratios)]
            row["step_s"] = statistics.median(seconds[name])
        yield {"variant": name, "executor": executor, "layers": layers, "rounds": rounds, **row}


def rows_under(executor: str, names: list[str], layers: int, rounds: int) -> Iterator[Any]:
    """All rows: op by op in this process, under Inductor each in one of its own."""
    if executor == "eager":
        yield from measure(executor, names, layers, rounds, {})
        return
    peaks: Peaks = {}
    for name in names[1:]:
        command = ["--executor", executor, "--layers", str(layers), "--rounds", str(rounds)]
        command += ["--peaks", json.dumps(peaks), "--one", name]
        first, row = rows_of("benchmarks.budget_curve", *command)
        if not peaks:
            yield first
        peaks.setdefault(PLAIN, first["peak_bytes"])
        peaks.setdefault(name, row.get("peak_bytes", 0))
        yield row


def table(rows: Sequence[records.Row]) -> str:
    """A line a variant, op by op and in Inductor's kernels."""
    lines = list[str]()
    for row in rows:
        if row["variant"] == PLAIN:
            plain = row
            title = "op by op" if row["executor"] == "eager" else "in Inductor's kernels"
            lines += ["", f"{title:32} {'peak, MiB':>9} {'of plain':>9} {'time':>6}  gradients"]
        if row["status"] != "ok":
            lines.append(f"{row['variant']:32} below the floor, {row['floor_bytes']:,} B")
            continue
        share = row["peak_bytes"] / plain["peak_bytes"]
        bits = "the same bits" if row["relative_error"] == 0 else f"{row['relative_error']:.1e} off"
        lines.append(
            f"{row['variant']:32} {row['peak_bytes'] / MEBI:9.1f} {share:9.2f} "
            f"{row['of_plain_time']:6.2f}  {bits}"
        )
    return "\n".join(lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--executor", choices=("eager", "inductor"), default="eager")
    parser.add_argument("--torch", nargs="*", default=RATIOS, help="ratios of torch's budget")
    parser.add_argument(
        "--fxremat", nargs="*", default=SHARES, help=f"shares of the plain peak, or '{LAYERED}'"
    )
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep the rows in this folder")
    parser.add_argument("--kept", type=Path, help="show the rows of this folder, measure nothing")
    parser.add_argument("--into", type=Path, help="show them in this page, between its two marks")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--peaks", type=json.loads, default={}, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kept:
        text = table(list(records.load(args.kept).values()))
        show(f"```\n{text}\n```", args.into, BEGIN, END)
        return
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 64  # a graph for each variant
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    if args.one:
        for row in measure(args.executor, [PLAIN, args.one], args.layers, args.rounds, args.peaks):
            print_row(row)
        return
    os.environ.update(child_environment(1))
    shares = [f"fxremat at {s}" if s == LAYERED else f"fxremat {s}" for s in args.fxremat]
    names = [PLAIN, LAYERED, *(f"torch {ratio}" for ratio in args.torch), *shares]
    rows = list[records.Row]()
    for row in rows_under(args.executor, names, args.layers, args.rounds):
        rows.append(row)
        if args.out:
            about = {**records.environment(1), "commit": commit()}
            about["command"] = " ".join(["python -m benchmarks.budget_curve", *sys.argv[1:]])
            key = f"{row['executor']}/{row['layers']}/{row['variant']}"
            records.append(args.out, {"key": key, **row, **about})
    if args.out:
        records.compact(args.out)
    print(table(rows))


if __name__ == "__main__":
    main()
