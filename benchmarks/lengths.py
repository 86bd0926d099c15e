"""What a further input length costs: planned at once, by the plans before it, or searched for.

python -m benchmarks.lengths [--layers 4 12] [--out DIR]

GPT-2 with random weights takes batches of ever other lengths under half of its largest step, both
ways in a process of its own. A row has medians over the further lengths: seconds of Dynamo, of
AOTAutograd and of ours, and the predicted extra time of the plans.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import fxremat
from benchmarks import records
from benchmarks.cuda.machine import commit
from benchmarks.own_process import print_row, rows_of
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.history import CompiledGraph

OUT = Path("benchmarks/results/lengths")
LENGTHS = (256, 192, 320, 224, 288, 160, 240)
WAYS = ("at once", "searched")


def measure(layers: int, way: str) -> dict[str, Any]:
    """All lengths after the first, in this process."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = GPT2Config(n_layer=layers, n_embd=256, n_head=8, vocab_size=2000)
    model = fxremat.optimize(GPT2LMHeadModel(config), budget=0.5)
    backend = compiled_of(model).backend
    backend.at_once = way == "at once"
    graphs: list[CompiledGraph] = []
    calls_s: list[float] = []
    for length in LENGTHS:
        ids = torch.randint(2000, (2, length))
        first_s, again_s = (_step_s(model, ids) for _ in range(2))
        graphs.append(backend.history.graphs[-1])
        calls_s.append(first_s - again_s)
    further = graphs[1:]
    ours = [graph.planning_s for graph in further]
    traced = [graph.capture_s for graph in further]
    rest = zip(calls_s[1:], traced, ours, strict=True)
    dynamo = [call_s - traced_s - ours_s for call_s, traced_s, ours_s in rest]
    extra = [graph.plan.extra_seconds / graph.plan.problem.baseline_cost for graph in further]
    return {
        "key": f"gpt2-{layers}/{way}",
        "layers": layers,
        "way": way,
        "lengths": len(further),
        "origins": sorted({str(graph.origin) for graph in further}),
        "dynamo_s": round(statistics.median(dynamo), 2),
        "aotautograd_s": round(statistics.median(traced), 2),
        "ours_s": round(statistics.median(ours), 2),
        "ours_at_most_s": round(max(ours), 2),
        "mean_extra": statistics.mean(extra),
    }


def _step_s(model: Any, ids: torch.Tensor) -> float:
    model.zero_grad()
    started = time.perf_counter()
    model(input_ids=ids, labels=ids).loss.backward()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 12])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print_row(measure(args.layers[0], args.way))
        return
    about = {
        **records.environment(1),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks.lengths", *sys.argv[1:]]),
    }
    for layers in args.layers:
        for way in WAYS:
            (row,) = rows_of("benchmarks.lengths", "--layers", str(layers), "--way", way)
            records.append(args.out, {**row, **about})
            print(row, flush=True)
    records.compact(args.out)


if __name__ == "__main__":
    main()
