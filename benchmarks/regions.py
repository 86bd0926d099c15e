"""Blocks that are compiled one by one against the whole graph: compile time, plans and bits.

python -m benchmarks.regions [MODEL[:LAYERS] ...] [--budgets 0.7 0.5] [--size bench]

Each row is of one process. Budgets are shares of the step memory of the whole graph with nothing
recomputed, in bytes the same for both ways. `compile_s` is the processor time, of all threads,
that steps take outside of their compiled graphs, above what as many planned ones do: tracing,
planning and compiling, with Dynamo and the solvers loaded before. (The first step by blocks
recomputes nearly all of its forward: that is within the graphs.) `extra` is the predicted time of
recomputation as a share of the step with nothing recomputed, by the same costs (`--cost`) for
both. Bits are compared with eager's, and with those of the same blocks with nothing recomputed: a
gradient that several blocks add to (T5's encoder output) is added up in another order than eager's.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

import fxremat
from benchmarks import records, zoo
from benchmarks.cuda.machine import commit
from benchmarks.own_process import child_environment, print_row, rows_of
from benchmarks.zoo.case import Workload
from fxremat.execute.eager import Eager
from fxremat.execute.executor import Boxed
from fxremat.frontend.compiled import compiled_of

OUT = Path("benchmarks/results/regions")
# The first is for its compile time; the others have the sizes of the other benchmarks.
MODELS = ("gpt2-sdpa:48", "gpt2-eager", "bert-sdpa", "llama-sdpa", "vit-sdpa", "t5")
STEPS = 3


def workload_of(model: str, size: str) -> Workload:
    """A model of the zoo, at another depth where one is given."""
    name, _, layers = model.partition(":")
    return zoo.get(name).make(size, **({"layers": int(layers)} if layers else {}))


@dataclass(frozen=True)
class Timed(Eager):
    """The executor, with the processor time that its graphs take."""

    seconds: list[float] = field(default_factory=list[float])

    def compile(self, graph: fx.GraphModule) -> Boxed:
        run = super().compile(graph)
        assert graph.code  # torch writes it when it is first asked for

        def timed(arguments: list[Any]) -> Any:
            began = time.process_time()
            results = run(arguments)
            self.seconds.append(time.process_time() - began)
            return results

        return timed


def run(workload: Workload, make: Callable[[nn.Module], Any]) -> dict[str, Any]:
    """Steps of a copy of a model: what they leave, the seconds outside of graphs, the peak."""
    module = copy.deepcopy(workload.step_module())
    function = make(module)
    inside = Timed()
    if function is not module:
        compiled_of(function).backend.executor = inside
    seconds: list[float] = []
    left: list[torch.Tensor] = []
    for index in range(STEPS):
        module.zero_grad()
        torch.manual_seed(index)
        batch = workload.batch(index)
        inside.seconds.clear()
        began = time.process_time()
        function(*batch).backward()
        seconds.append(time.process_time() - began - sum(inside.seconds))
        left += [p.grad.clone() for p in module.parameters() if p.grad is not None]
        left.append(torch.get_rng_state())
    left += [buffer.clone() for buffer in module.buffers()]
    module.zero_grad()
    batch = workload.batch(0)
    peak = fxremat.measure_peak(lambda: function(*batch).backward()).peak_bytes
    return {"function": function, "left": left, "seconds": seconds, "peak_bytes": peak}


def compile_s(seconds: list[float]) -> float:
    """The time that goes before the steps are planned."""
    return round(sum(seconds) - len(seconds) * seconds[-1], 3)


def measure(model: str, share: float, size: str, cost: str) -> dict[str, Any]:
    """The row of a model at a budget."""
    load_everything()
    workload = workload_of(model, size)
    plain = run(workload, lambda module: module)
    whole = run(workload, lambda m: fxremat.optimize(m, budget=share, cost=cost, fullgraph=True))
    plan = compiled_of(whole["function"]).backend.history.graphs[-1].plan
    budget = plan.budget_bytes
    options: dict[str, Any] = {"cost": cost, "regions": "blocks"}
    blocks = run(workload, lambda m: fxremat.optimize(m, budget=budget, **options))
    step = fxremat.explain_step(blocks["function"])
    unplanned = run(workload, lambda m: fxremat.optimize(m, budget=1.0, **options))
    scale = plan.problem.baseline_cost
    graphs = compiled_of(blocks["function"]).backend.history.graphs

    def same(run: dict[str, Any], other: dict[str, Any]) -> bool:
        return all(map(torch.equal, run["left"], other["left"]))

    return {
        "key": f"{model}/{size}/{share}/{cost}",
        "status": "ok" if blocks["peak_bytes"] <= budget and same(blocks, unplanned) else "wrong",
        "model": model,
        "size": size,
        "budget": share,
        "cost": cost,
        "budget_bytes": budget,
        "whole_baseline_bytes": plan.baseline_peak_bytes,
        "blocks_baseline_bytes": step.baseline_peak_bytes,
        "plain_peak_bytes": plain["peak_bytes"],
        "whole_peak_bytes": whole["peak_bytes"],
        "blocks_peak_bytes": blocks["peak_bytes"],
        "outside_bytes": step.outside_peak_bytes,
        "whole_has_eager_bits": same(whole, plain),
        "blocks_have_eager_bits": same(blocks, plain),
        "blocks_have_unplanned_bits": same(blocks, unplanned),
        "calls": len(step.calls),
        "graphs": len(graphs),
        "whole_extra": plan.solution.cost / scale - 1,
        "whole_bound": plan.solution.lower_bound / scale - 1,
        "blocks_extra": step.extra_seconds / scale,
        "blocks_bound": step.lower_bound_seconds / scale,
        "whole_compile_s": compile_s(whole["seconds"]),
        "blocks_compile_s": compile_s(blocks["seconds"]),
    }


def load_everything() -> None:
    """What a process loads once, whatever it compiles."""
    small = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(6)))
    x = torch.randn(64, 8)
    fxremat.optimize(small, budget=0.8)(x).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--budgets", nargs="*", type=float, default=[0.7, 0.5])
    parser.add_argument("--size", choices=("tiny", "bench"), default="bench")
    parser.add_argument("--cost", choices=("measured", "roofline", "flops"), default="roofline")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        torch.set_num_threads(1)
        print_row(measure(args.models[0], args.budgets[0], args.size, args.cost))
        return
    os.environ.update(child_environment(1) | {"HF_HUB_OFFLINE": "1"})
    about = {
        **records.environment(1),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks.regions", *sys.argv[1:]]),
    }
    for model in args.models:
        for share in args.budgets:
            cell = [model, "--budgets", str(share), "--size", args.size, "--cost", args.cost]
            (row,) = rows_of("benchmarks.regions", "--one", *cell)
            records.append(args.out, {**row, **about})
            print(line(row), flush=True)
    records.compact(args.out)


def line(row: dict[str, Any]) -> str:
    """What a reader wants to know of a row first."""
    return (
        f"{row['model']} at {row['budget']}: {row['status']}; {row['graphs']} graphs, "
        f"{row['calls']} calls; recomputed {100 * row['whole_extra']:.2f} % of the step by the "
        f"whole graph, {100 * row['blocks_extra']:.2f} % by blocks; compiled in "
        f"{row['whole_compile_s']:.1f} and {row['blocks_compile_s']:.1f} s"
    )


if __name__ == "__main__":
    main()
