"""Loops on a device: bits of the plain loop's, peaks as planned, time beside the plain loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

import fxremat
from benchmarks import loops
from benchmarks.cuda.job import Job, Rows
from benchmarks.measure import clock_of

ROUNDS = 3

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


def jobs(device: str) -> Iterator[Job]:
    on_device = torch.device(device).type != "cpu"
    ways = WAYS if on_device else dict(list(WAYS.items())[:3])
    for name in ("heat", "ode") if on_device else ("heat",):
        for way, options in ways.items():
            run = functools.partial(row, name, options, LARGE if on_device else SMALL, device)
            yield Job(f"{name}|{way}", run, name)


def row(
    name: str,
    options: Mapping[str, Any],
    sizes: Mapping[str, int],
    device: str,
    _rows: Rows,
) -> Mapping[str, Any]:
    """A way to run a loop, beside the plain one and checkpoints around sqrt(n) steps."""
    steps = sizes["steps"]
    problem = problem_of(name, sizes, device)
    own = {**options}
    exact, plain_bytes = traced(loops.plain, problem, steps, device)
    repeated, _ = traced(loops.plain, problem, steps, device)
    _, checkpoint_bytes = traced(loops.sqrt_checkpoint, problem, steps, device)
    if "budget" in own:
        own["budget"] = int(own["budget"] * checkpoint_bytes)
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
    found, measured = traced(method, problem, steps, device, warm=True)
    calls = problem.calls
    clock = clock_of(device)
    seconds: dict[str, list[float]] = {each: [] for each in ("plain", "loop")}
    for _ in range(ROUNDS):
        for each, run in (("plain", loops.plain), ("loop", method)):
            began = clock()
            loops.differentiate(run, problem, steps)
            seconds[each].append(clock() - began)
    return {
        "model": f"{name}, {steps} steps",
        "bitwise": all(map(torch.equal, exact, found)),
        "eager_repeats": all(map(torch.equal, exact, repeated)),
        "eager_error": loops.error(exact, repeated),
        "reference": "plain loop",
        "comparison": {"relative_error": loops.error(exact, found)},
        "budget_bytes": own.get("budget"),
        "planned_peak_bytes": planned,
        "measured_peak_bytes": measured,
        "plain_peak_bytes": plain_bytes,
        "checkpoint_peak_bytes": checkpoint_bytes,
        "evaluations": calls,
        "of_plain_time": min(seconds["loop"]) / min(seconds["plain"]),
        "step_s": min(seconds["loop"]),
    }


def problem_of(name: str, sizes: Mapping[str, int], device: str) -> loops.Problem:
    if name == "heat":
        return loops.heat(sizes["side"], device)
    return loops.ode(sizes["steps"], sizes["rows"], sizes["width"], device)


def traced(
    method: Callable[..., Any],
    problem: loops.Problem,
    steps: int,
    device: str,
    *,
    warm: bool = False,
) -> tuple[tuple[torch.Tensor, ...], int]:
    """Gradients of a way's first run, and the peak of its second, or of its third."""
    found = loops.differentiate(method, problem, steps)
    calls = problem.calls
    if warm:
        loops.differentiate(method, problem, steps)
    run = lambda: loops.differentiate(method, problem, steps)  # noqa: E731
    peak = fxremat.measure_peak(run, device=device).peak_bytes
    problem.calls = calls
    return found, peak
