"""Write the joint graphs of real models as problems for the solvers, small enough to keep.

python -m benchmarks.fixtures [--models ...] [--out tests/fxremat_solvers/fixtures]

Bytes are those of the model at its benchmark size on CPU. Costs are seconds by the roofline of a
device with the round ceilings below (`NOMINAL`), not of the machine that wrote the file, so that
what a solver reaches on them can be compared anywhere. Each model is traced in a process of its
own; files are gzipped JSON. Those kept are of version 1 of the format, new ones of version 2.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import zoo
from benchmarks.joint_graphs import FOLDER
from fxremat.annotate.annotate import roofline_seconds
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.optimize import optimize
from fxremat.graph import Operation
from fxremat.lower.lowering import Lowering
from fxremat.measure.device_ceilings import Ceilings
from fxremat_solvers import Op, RematProblem

# Two cores of a small server, in round numbers.
NOMINAL = Ceilings(flops_per_s=100e9, vector_flops_per_s=20e9, bytes_per_s=10e9, launch_s=3e-6)
MODELS = (
    "gpt2-eager",
    "gpt2-sdpa",
    "bert-eager",
    "t5",
    "llama-sdpa",
    "vit-sdpa",
    "resnet50",
    "vgg16bn",
    "unet",
    "mamba",
    "lstm64",
    "ode48",
    "two-tower",
)


def problem_of(model: str) -> RematProblem:
    """The training step of a model of the zoo, its costs by the nominal roofline."""
    workload = zoo.get(model).make("bench")
    module = workload.step_module()
    optimized = optimize(module, budget=1.0, cost="flops", example_inputs=workload.batch(0))
    plan = compiled_of(optimized).backend.history.graphs[-1].plan
    priced = plan.graph.with_operations([_priced(each) for each in plan.graph.operations])
    problem = Lowering.apply(priced).problem
    return replace(problem, ops=tuple(map(_rounded, problem.ops)))


def _priced(operation: Operation) -> Operation:
    """The operation with the seconds that it takes on the nominal device."""
    seconds = float(f"{roofline_seconds(operation.node, NOMINAL):.4g}")
    return replace(operation, cost=replace(operation.cost, seconds=seconds))


def _rounded(op: Op) -> Op:
    """The op with costs of four digits, which take less room in a file."""
    reruns = (replace(again, cost=float(f"{again.cost:.4g}")) for again in op.reruns)
    return replace(op, cost=float(f"{op.cost:.4g}"), reruns=tuple(reruns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(zoo.CASES))
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if len(args.models) == 1:
        model = args.models[0]
        problem = problem_of(model)
        # No time and no name in the archive: the same problem is the same file.
        packed = gzip.compress(problem.to_json().encode(), 9, mtime=0)
        (args.out / f"{model}.json.gz").write_bytes(packed)
        print(f"{model}: {len(problem.ops)} ops, {len(packed) / 1024:.0f} KiB", flush=True)
        return
    for model in args.models:
        command = [sys.executable, "-m", "benchmarks.fixtures", "--models", model]
        subprocess.run([*command, "--out", str(args.out)], check=True)


if __name__ == "__main__":
    main()
