"""What `fxremat.estimate` says of a device beside what the device does.

First its rates, by which a `DeviceSpec` can be corrected; then steps of models, estimated without
the device and measured on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

import fxremat
from benchmarks import zoo
from benchmarks.cuda.job import Job, Rows
from benchmarks.cuda.needs import needs_of
from benchmarks.measure import Step, clock_of, step_peak
from fxremat.estimate.device import DEVICES, device_of
from fxremat_solvers import quick

ROUNDS = 5
SHARES = (0.7, 0.5)


def jobs(models: Mapping[str, Mapping[str, int]], device: str, size: str) -> Iterator[Job]:
    yield Job("rates", functools.partial(rates, device), "rates")
    for model, numbers in models.items():
        run = functools.partial(row, model, numbers, device, size)
        yield Job(model, run, model, needs_of(model))


def spec_for(device: str) -> fxremat.DeviceSpec | str:
    """The spec of the GPU that is there; the H100's for one that isn't known."""
    if device == "cpu":
        return "cpu"
    name = torch.cuda.get_device_name(device).lower()
    known = [each for each in DEVICES if each.split("-")[0] in name.replace("rtx ", "rtx-")]
    return known[-1] if known else "h100"


def rates(device: str, _rows: Rows) -> Mapping[str, Any]:
    """Products, copies, launches and the link to the host, each by the best of some rounds."""
    side = 8192 if device != "cpu" else 256
    found = dict[str, float]()
    for name, dtype in (("half", torch.bfloat16), ("float32", torch.float32)):
        a = torch.randn(side, side, dtype=torch.float32).to(device, dtype)
        found[f"{name}_flops"] = 2 * side**3 / best(device, functools.partial(torch.mm, a, a))
    data = torch.empty(side * side, device=device)
    into = torch.empty_like(data)
    moved = 2 * data.untyped_storage().nbytes()
    found["bandwidth"] = moved / best(device, functools.partial(into.copy_, data))
    tiny = torch.empty(1, device=device)

    def launches() -> None:
        for _ in range(1000):
            tiny.add_(1)

    found["dispatch_s"] = best(device, launches) / 1000
    if device != "cpu":
        host = torch.empty(side * side, pin_memory=True)
        host_s = best(device, functools.partial(host.copy_, data, non_blocking=True))
        found["host_bandwidth"] = host.untyped_storage().nbytes() / host_s
    spec = device_of(spec_for(device))
    said = {
        "half_flops": spec.product_flops.get("half", 0) * spec.product_share,
        "float32_flops": spec.product_flops["float32"] * spec.product_share,
        "bandwidth": spec.bandwidth * spec.traffic_share,
        "dispatch_s": spec.dispatch_s,
        "host_bandwidth": spec.host_bandwidth,
    }
    return {"spec": spec.name, "measured": found, "said": said}


def best(device: str, function: Callable[[], Any]) -> float:
    """Seconds of the fastest of some runs, the first left out."""
    taken, clock = list[float](), clock_of(device)
    for _ in range(ROUNDS + 1):
        began = clock()
        function()
        taken.append(clock() - began)
    return min(taken[1:])


def row(
    model: str, numbers: Mapping[str, int], device: str, size: str, _rows: Rows
) -> Mapping[str, Any]:
    """Peak and time of a step as estimated and as measured, with nothing recomputed and less."""

    def make() -> Any:
        return zoo.get(model).make(size, **numbers)

    workload = make()
    found = fxremat.estimate(
        workload.step_module(), workload.batch(0), device=spec_for(device), batch_sizes=[], points=3
    )
    points = list[dict[str, Any]]()
    plain_s = 0.0
    for share in (None, *SHARES):
        run = make().to(device)
        module = run.step_module()
        budget = None if share is None else int(share * found.peak_bytes)
        try:
            call = module if budget is None else fxremat.optimize(module, budget=budget)
            step = Step(module, call)
            for index in range(2):
                step.clear()
                step.run(run.batch(index))
        except fxremat.BudgetInfeasible as error:
            points.append({"share": share, "floor_bytes": error.floor_bytes})
            continue
        batch = run.batch(0)
        peak = step_peak(step, batch, device)

        def once(step: Step = step, batch: Any = batch) -> None:
            step.clear()
            step.run(batch)

        seconds = best(device, once)
        plain_s = plain_s or seconds
        point: dict[str, Any] = {"share": share, "measured_peak": peak, "measured_s": seconds}
        if budget is not None:
            about = fxremat.explain(call)
            estimated = quick(found.problem, budget).cost / found.problem.baseline_cost - 1
            point |= {
                "budget": budget,
                "planned_peak": about.planned_peak_bytes,
                "measured_extra": seconds / plain_s - 1,
                "estimated_extra": estimated,
            }
        points.append(point)
    return {
        "model": model,
        "estimated_peak": found.peak_bytes,
        "estimated_s": found.step_seconds,
        "estimated_floor": found.floor_bytes,
        "points": points,
    }
