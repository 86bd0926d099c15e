"""Loops beside what people use: peak, evaluations of the step, time, and error of the gradients.

python -m benchmarks.loops [--steps N] [--rounds N] [--peers-python PYTHON] [--out DIR]

Two recurrences: the Fisher-KPP equation on a grid (a cheap step, a tape of five states) and a
neural ODE by Runge and Kutta (a dear step). Every method runs forward and backward of one loss;
times are the least processor time of alternating rounds in one process, peaks the allocator's. The
plain loop's gradients are the reference. torchdiffeq's adjoint is measured where it is installed,
JAX's nested checkpoints and equinox's loop (`loops_peers.py`) with the Python of an environment
that has them. What isn't there is left out, which is said.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fxremat
from benchmarks import records
from fxremat_solvers.loops.segments import segments

OUT = Path("benchmarks/results/loops")


@dataclass
class Problem:
    """A recurrence from `first`; gradients are for `leaves`, `calls` counts evaluations."""

    name: str
    step: Callable[[Tensor, int], Tensor]
    first: Tensor
    leaves: list[Tensor]
    slope: nn.Module | None = None
    size: float = 0.0
    calls: int = 0

    def counted(self, y: Tensor, i: int) -> Tensor:
        self.calls += 1
        return self.step(y, i)


def heat(side: int = 256, device: str = "cpu") -> Problem:
    """Fisher and Kolmogorov's equation, whose diffusion is a parameter of every place."""
    generator = torch.Generator().manual_seed(0)
    field = torch.rand(side, side, generator=generator).to(device).requires_grad_()
    first = torch.rand(side, side, generator=generator).to(device)

    def step(u: Tensor, _: int) -> Tensor:
        around = torch.roll(u, 1, 0) + torch.roll(u, -1, 0) + torch.roll(u, 1, 1)
        return u + 0.1 * field * (around + torch.roll(u, -1, 1) - 4 * u) + 0.01 * u * (1 - u)

    return Problem("heat", step, first, [field])


class Slope(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, 64), nn.Linear(64, width)

    def forward(self, time: float | Tensor, y: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(y) + time))


def ode(steps: int, rows: int = 256, width: int = 32, device: str = "cpu") -> Problem:
    torch.manual_seed(0)
    slope, h = Slope(width).to(device), 1 / steps

    def step(y: Tensor, i: int) -> Tensor:
        t = h * i
        first = slope(t, y)
        second = slope(t + h / 2, y + h / 2 * first)
        third = slope(t + h / 2, y + h / 2 * second)
        fourth = slope(t + h, y + h * third)
        return y + h / 6 * (first + 2 * second + 2 * third + fourth)

    first = torch.randn(rows, width).to(device)
    return Problem("rk4 neural ode", step, first, list(slope.parameters()), slope, h)


def plain(problem: Problem, steps: int) -> Tensor:
    y = problem.first
    for i in range(steps):
        y = problem.counted(y, i)
    return y


def sqrt_checkpoint(problem: Problem, steps: int) -> Tensor:
    """torch's usual recipe: checkpoints around sqrt(n) steps each."""
    length = math.isqrt(steps)

    def several(y: Tensor, begin: int) -> Tensor:
        for i in range(begin, min(steps, begin + length)):
            y = problem.counted(y, i)
        return y

    y = problem.first
    for begin in range(0, steps, length):
        y = checkpoint(several, y, begin, use_reentrant=False)
    return y


def adjoint(problem: Problem, steps: int) -> Tensor:
    from torchdiffeq import odeint_adjoint

    assert problem.slope is not None
    times = torch.tensor([0.0, 1.0])
    options = {"step_size": 1 / steps}
    # Its "rk4" is another method of fourth order: the error is against the plain loop's.
    return odeint_adjoint(problem.slope, problem.first, times, method="rk4", options=options)[-1]


def looped(**options: Any) -> Callable[[Problem, int], Tensor]:
    return lambda problem, steps: fxremat.loop(
        problem.counted, problem.first, steps=steps, **options
    )


def compiled(plan: fxremat.LoopPlan) -> Callable[[Problem, int], Tensor]:
    """A loop whose step was compiled: its evaluations are the plan's, as nothing counts them."""

    def run(problem: Problem, steps: int) -> Tensor:
        problem.calls += plan.evaluations
        return fxremat.loop(problem.step, problem.first, steps=steps, schedule=plan)

    return run


def online(slots: int) -> Callable[[Problem, int], Tensor]:
    return lambda problem, steps: fxremat.loop(
        problem.counted, problem.first, while_=lambda _, i: i < steps, slots=slots
    )[0]


def methods(
    problem: Problem,
    steps: int,
    peaks: dict[str, int],
    folder: str,
    executors: tuple[str, ...],
) -> dict[str, Any]:
    """By their names; what is planned under the checkpoint's peak is so once it is known."""
    found: dict[str, Any] = {"plain": plain, "checkpoint, sqrt(n)": sqrt_checkpoint}
    if problem.slope is not None:
        found["odeint_adjoint"] = adjoint
    for slots in (5, 20, 60):
        found[f"fxremat.loop, {slots} slots"] = looped(slots=slots)
    options: dict[str, Any] = {"steps": steps, "compile": True}
    for executor in executors[-1:]:
        plan = fxremat.loop.plan(
            problem.step, problem.first, slots=20, executor=executor, **options
        )
        found[f"fxremat.loop, 20 slots, compiled: {executor}"] = compiled(plan)
    length = math.isqrt(steps)
    uniform = lambda p, n: looped(schedule=segments(n, n, length))(p, n)  # noqa: E731
    found["fxremat.loop, uniform"] = uniform
    for share, name in ((1.0, "checkpoint's peak"), (0.5, "half of it")):
        if "checkpoint, sqrt(n)" in peaks:
            nbytes = int(share * peaks["checkpoint, sqrt(n)"])
            plan = fxremat.loop.plan(problem.counted, problem.first, steps=steps, budget=nbytes)
            found[f"fxremat.loop, {name}"] = looped(schedule=plan)
            for executor in executors:
                plan = fxremat.loop.plan(
                    problem.step, problem.first, budget=nbytes, executor=executor, **options
                )
                found[f"fxremat.loop, {name}, compiled: {executor}"] = compiled(plan)
    found["fxremat.loop, 20 slots, while_"] = online(20)
    found["fxremat.loop, 5 slots and disk"] = looped(slots=5, store=f"disk:{folder}")
    return found


def differentiate(method: Any, problem: Problem, steps: int) -> tuple[Tensor, ...]:
    loss = (method(problem, steps) ** 2).mean()
    return torch.autograd.grad(loss, problem.leaves)


def error(exact: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> float:
    apart = torch.cat([(a - b).flatten() for a, b in zip(exact, found, strict=True)])
    return float(apart.norm() / torch.cat([a.flatten() for a in exact]).norm())


def of_peers(
    problem: Problem, steps: int, rounds: int, exact: tuple[Tensor, ...], python: Path | None
) -> list[dict[str, Any]]:
    """What `loops_peers.py` measures, by the Python of another environment."""
    if python is None:
        print("JAX's loops are left out: no --peers-python")
        return []
    tensors = {"first": problem.first}
    for k, (leaf, gradient) in enumerate(zip(problem.leaves, exact, strict=True)):
        tensors |= {f"leaf{k}": leaf.detach(), f"gradient{k}": gradient}
    script = Path(__file__).with_name("loops_peers.py")
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
        done = subprocess.run(
            [str(python), str(script), str(path), str(steps), str(rounds)],
            env={"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        print(f"JAX's loops are left out: {done.stderr.strip().splitlines()[-1:]}")
        return []
    return [json.loads(line) for line in done.stdout.splitlines()]


def measure(
    problem: Problem,
    steps: int,
    rounds: int,
    out: Path,
    python: Path | None = None,
    executors: tuple[str, ...] = ("eager", "inductor"),
) -> None:
    peaks: dict[str, int] = {}
    exact = differentiate(plain, problem, steps)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("plain", "checkpoint, sqrt(n)"):
            method = {"plain": plain, "checkpoint, sqrt(n)": sqrt_checkpoint}[name]
            differentiate(method, problem, steps)
            run = lambda m=method: differentiate(m, problem, steps)  # noqa: E731
            peaks[name] = fxremat.measure_peak(run).peak_bytes
        chosen = methods(problem, steps, peaks, folder, executors)
        rows: dict[str, dict[str, Any]] = {}
        for name, method in chosen.items():
            problem.calls = 0
            try:
                found = differentiate(method, problem, steps)
            except ImportError as missing:
                print(f"{name} is left out: {missing}")
                continue
            calls = problem.calls
            run = lambda m=method: differentiate(m, problem, steps)  # noqa: E731
            peak = fxremat.measure_peak(run).peak_bytes
            rows[name] = {
                "key": f"{problem.name}/{steps}/{name}",
                "status": "ok",
                "problem": problem.name,
                "steps": steps,
                "method": name,
                "peak_bytes": peak,
                "evaluations": calls or None,
                "bitwise": all(map(torch.equal, exact, found)),
                "error": error(exact, found),
                "seconds": math.inf,
            }
        for _ in range(rounds):
            for name, row in rows.items():
                begin = time.process_time()
                differentiate(chosen[name], problem, steps)
                row["seconds"] = min(row["seconds"], time.process_time() - begin)
    for row in of_peers(problem, steps, rounds, exact, python):
        about = {"problem": problem.name, "steps": steps, "status": "ok"}
        rows[row["method"]] = {"key": f"{problem.name}/{steps}/{row['method']}", **about, **row}
    for row in rows.values():
        row["ratio"] = row["seconds"] / rows["plain"]["seconds"]
        records.append(out, {**row, **records.environment(torch.get_num_threads())})


def table(out: Path) -> str:
    lines = [
        "| recurrence, steps | method | peak, MiB | evaluations / n | time / plain | gradients |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    rows = records.load(out).values()
    for row in sorted(rows, key=lambda row: (row["problem"], -row["steps"])):
        each = "" if row["evaluations"] is None else f"{row['evaluations'] / row['steps']:.2f}"
        peak = row["peak_bytes"] / 2**20
        bits = "bitwise" if row["bitwise"] else f"off by {row['error']:.1e}"
        lines.append(
            f"| {row['problem']}, {row['steps']} | {row['method']} | {peak:.2f} "
            f"| {each} | {row['ratio']:.2f} | {bits} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--peers-python", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for problem in (heat(options.side), ode(options.steps)):
        measure(problem, options.steps, options.rounds, options.out, options.peers_python)
    records.compact(options.out)
    (options.out / "table.md").write_text(table(options.out))
    print(table(options.out))


if __name__ == "__main__":
    main()
