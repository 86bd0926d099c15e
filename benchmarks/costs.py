"""How well do the cost models know an op's time? Measured against modelled, for one model.

python -m benchmarks.costs [--models bert-eager ...] [--out FILE]

Prints a table by kind of op: the sum over the step, measured on this machine and as the roofline
and the FLOP model have it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import fxremat
from benchmarks import zoo
from benchmarks.records import environment
from fxremat.annotate.annotate import node_costs
from fxremat.frontend.compiled import compiled_of
from fxremat.measure.profile_ops import OpProfiles
from fxremat.nodes import op_name

MODELS = ("measured", "roofline", "flops")


def seconds_by_kind(model: str, size: str) -> dict[str, dict[str, float]]:
    """Seconds a step of each kind of op, by cost model."""
    workload = zoo.get(model).make(size, seed=0)
    module = workload.step_module()
    optimized = fxremat.optimize(module, budget=1.0, example_inputs=workload.batch(0))
    joint = compiled_of(optimized).backend.history.graphs[0].plan.graph
    found: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(MODELS, 0.0))
    for cost in MODELS:
        for node, taken in node_costs(joint, cost, OpProfiles()).items():
            found[op_name(node.target)][cost] += taken.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]["measured"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["bert-eager", "mlp-relu", "mlp-gelu"])
    parser.add_argument("--size", default="bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/costs.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    console = Console(width=100)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for model in args.models:
        results[model] = seconds_by_kind(model, args.size)
        total = {cost: sum(row[cost] for row in results[model].values()) for cost in MODELS}
        table = Table(title=f"{model}: milliseconds a step, by kind of op")
        table.add_column("op")
        for cost in MODELS:
            table.add_column(cost, justify="right")
        for name, row in results[model].items():
            if row["measured"] > 0.005 * total["measured"]:
                table.add_row(name, *(f"{1e3 * row[cost]:.2f}" for cost in MODELS))
        table.add_row("all", *(f"{1e3 * total[cost]:.2f}" for cost in MODELS))
        console.print(table)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    document = {"size": args.size, "seconds": results}
    args.out.write_text(json.dumps(document | environment(args.threads), indent=1) + "\n")


if __name__ == "__main__":
    main()
