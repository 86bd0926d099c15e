"""Loops on a device: bits of the plain loop's, peaks as planned, time beside the plain loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import fxremat
from benchmarks import loops
from benchmarks.cuda.job import Job, Rows
from benchmarks.measure import clock_of

ROUNDS = 3

Gradients = tuple[torch.Tensor, ...]

# A grid and a state of some MiB, so that kernels rather than launches take the time.
LARGE: Mapping[str, int] = {"steps": 400, "side": 2048, "rows": 8192, "width": 512}
SMALL: Mapping[str, int] = {"steps": 60, "side": 32, "rows": 8, "width": 8}

WAYS: Mapping[str, Mapping[str, Any]] = {
    "20 slots": {"slots": 20},
    "5 slots and the host": {"slots": 5, "store": "cpu"},
    "half of checkpointing": {"budget": 0.5},
    "half of checkpointing, compiled": {"budget": 0.5, "compile": True},
    "20 slots, while_": {"slots": 20, "while_": True},
}


@dataclass(frozen=True)
class Plain:
    """A problem, what the plain loop leaves twice, and the peaks of plain and of checkpoints."""

    problem: loops.Problem
    exact: Gradients
    repeated: Gradients
    peak_bytes: int
    checkpoint_bytes: int

    @staticmethod
    def of(name: str, sizes: Mapping[str, int], device: str) -> Plain:
        steps = sizes["steps"]
        if name == "heat":
            problem = loops.heat(sizes["side"], device)
        else:
            problem = loops.ode(steps, sizes["rows"], sizes["width"], device)
        exact = loops.differentiate(loops.plain, problem, steps)
        repeated = loops.differentiate(loops.plain, problem, steps)
        loops.differentiate(loops.sqrt_checkpoint, problem, steps)
        peaks = (
            peak_of(way, problem, steps, device) for way in (loops.plain, loops.sqrt_checkpoint)
        )
        return Plain(problem, exact, repeated, *peaks)


def jobs(device: str) -> Iterator[Job]:
    """A job a loop and way. The first of a loop's runs it plainly, too."""
    made: dict[str, Plain] = {}  # of one loop at a time: they hold the device's memory
    on_device = torch.device(device).type != "cpu"
    ways = WAYS if on_device else dict(list(WAYS.items())[:3])
    for name in ("heat", "ode") if on_device else ("heat",):
        for way, options in ways.items():
            sizes = LARGE if on_device else SMALL
            run = functools.partial(row, made, name, options, sizes, device)
            yield Job(f"{name}|{way}", run, name)


def row(
    made: dict[str, Plain],
    name: str,
    options: Mapping[str, Any],
    sizes: Mapping[str, int],
    device: str,
    _rows: Rows,
) -> Mapping[str, Any]:
    """A way to run a loop, beside the plain one and checkpoints around sqrt(n) steps."""
    if name not in made:
        made.clear()
        made[name] = Plain.of(name, sizes, device)
    plain, steps = made[name], sizes["steps"]
    problem, own = plain.problem, {**options}
    if "budget" in own:
        own["budget"] = int(own["budget"] * plain.checkpoint_bytes)
    planned = None
    if own.pop("while_", False):
        method = loops.online(own["slots"])
    elif "store" in own:
        method = loops.looped(**own)
    else:
        step = problem.step if own.get("compile") else problem.counted
        plan = fxremat.loop.plan(step, problem.first, steps=steps, **own)
        planned = plan.peak_bytes
        method = loops.compiled(plan) if own.get("compile") else loops.looped(schedule=plan)
    problem.calls = 0
    found = loops.differentiate(method, problem, steps)
    calls = problem.calls
    loops.differentiate(method, problem, steps)
    measured = peak_of(method, problem, steps, device)
    clock = clock_of(device)
    seconds: dict[str, list[float]] = {each: [] for each in ("plain", "loop")}
    for _ in range(ROUNDS):
        for each, run in (("plain", loops.plain), ("loop", method)):
            began = clock()
            loops.differentiate(run, problem, steps)
            seconds[each].append(clock() - began)
    return {
        "model": f"{name}, {steps} steps",
        "bitwise": all(map(torch.equal, plain.exact, found)),
        "eager_repeats": all(map(torch.equal, plain.exact, plain.repeated)),
        "eager_error": loops.error(plain.exact, plain.repeated),
        "reference": "plain loop",
        "comparison": {"relative_error": loops.error(plain.exact, found)},
        "budget_bytes": own.get("budget"),
        "planned_peak_bytes": planned,
        "measured_peak_bytes": measured,
        "plain_peak_bytes": plain.peak_bytes,
        "checkpoint_peak_bytes": plain.checkpoint_bytes,
        "evaluations": calls,
        "of_plain_time": min(seconds["loop"]) / min(seconds["plain"]),
        "step_s": min(seconds["loop"]),
    }


def peak_of(method: Callable[..., Any], problem: loops.Problem, steps: int, device: str) -> int:
    """What a way takes that has run before."""
    run = functools.partial(loops.differentiate, method, problem, steps)
    return fxremat.measure_peak(run, device=device).peak_bytes
