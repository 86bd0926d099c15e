"""Estimates: the bytes are those of plans made here, and another device's rules are its own."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import pytest
import torch

import fxremat
from benchmarks import zoo
from fxremat.__main__ import main
from fxremat.estimate.batches import LARGEST, BatchSize, largest_batches
from fxremat.estimate.device import DEVICES
from fxremat.estimate.front import Planned, rising
from fxremat.frontend.compiled import compiled_of
from fxremat_solvers import RematProblem, Schedule, simulate
from tests.fxremat.cli.factories import reads_a_tensor
from tests.fxremat.estimate import small

QUICK = {"points": 3, "time_limit_s": 1.0}


def sizes_of(problem: RematProblem) -> list[object]:
    """All of a problem but its times."""
    runs = [
        [(run.inputs, run.outputs, run.workspace_bytes) for run in (op, *op.reruns)]
        for op in problem.ops
    ]
    return [runs, problem.values, problem.inputs, problem.outputs]


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in zoo.CASES if name != "two-tower"]


@pytest.mark.parametrize("name", ["two-tower", *OTHERS])
def test_bytes_on_this_cpu_are_those_that_optimize_plans_with(name: str) -> None:
    workload = zoo.get(name).make("tiny")
    module, batch = workload.step_module(), workload.batch(0)
    found = fxremat.estimate(module, batch, device="cpu", batch_sizes=[], **QUICK)
    optimized = fxremat.optimize(module, budget=1.0, cost="roofline", example_inputs=batch)
    problem = compiled_of(optimized).backend.history.graphs[-1].plan.problem
    assert sizes_of(found.problem) == sizes_of(problem)
    peaks = [simulate(problem, schedule).peak_bytes for schedule in found.schedules]
    assert peaks == [point.step_bytes for point in found.points]
    assert found.floor_bytes <= found.peak_bytes


@pytest.fixture(scope="module")
def on_h100() -> fxremat.Estimate:
    # With time for all bounds, however busy the machine is.
    return fxremat.estimate(small.factory, device="h100", dtype="bf16", points=3, time_limit_s=60)


def test_attention_is_the_devices(on_h100: fxremat.Estimate) -> None:
    names = dict(on_h100.kernels)
    assert names["_scaled_dot_product_flash_attention"] == 1
    assert names["_scaled_dot_product_flash_attention_backward"] == 1
    assert on_h100.dtype == "bfloat16"


def test_what_is_resident_is_what_torch_has(on_h100: fxremat.Estimate) -> None:
    model = small.Small().to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(2, 48, dtype=torch.long)).backward()
    optimizer.step()
    parameters = sum(p.untyped_storage().nbytes() for p in model.parameters())
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    assert on_h100.resident.parameter_bytes == on_h100.resident.gradient_bytes == parameters
    assert on_h100.resident.optimizer_bytes == sum(v.untyped_storage().nbytes() for v in state)


def test_points_lie_between_the_bound_and_the_least(on_h100: fxremat.Estimate) -> None:
    extras = [point.extra for point in on_h100.points]
    assert extras == sorted(extras, reverse=True)
    assert extras[-1] == 0.0 < extras[0]
    bounds = [point.bound for point in on_h100.points]
    assert all(b is not None and 0 <= b <= e for b, e in zip(bounds, extras, strict=True))
    held = sum(h.nbytes for h in on_h100.minimum.holders) + on_h100.minimum.workspace_bytes
    assert held == on_h100.floor_bytes
    assert any(h.source.startswith("small.py:") for h in on_h100.minimum.holders)


def test_memory_on_a_gpu_is_in_its_blocks(on_h100: fxremat.Estimate) -> None:
    assert all(value.nbytes % 512 == 0 for value in on_h100.problem.values)
    # Adds up in the order of the threads there, and makes a gradient.
    again = {op.name: op.reruns for op in on_h100.problem.ops}
    assert not any(reruns for name, reruns in again.items() if name.startswith("embedding_dense"))


def test_other_batch_sizes_are_what_a_trace_of_them_says(on_h100: fxremat.Estimate) -> None:
    inputs = torch.zeros(2, 48, dtype=torch.long)
    model = small.Small()
    found = fxremat.estimate(model, inputs, device="l4", batch_sizes=[7], **QUICK)
    other = fxremat.estimate(
        model, torch.zeros(7, 48, dtype=torch.long), device="l4", batch_sizes=[], **QUICK
    )
    (size,) = found.batches
    # Blocks of 512 bytes don't lie on a line, each of them may be off by one.
    assert abs(size.step_bytes - other.peak_bytes) <= 512 * len(other.problem.values)
    assert size.step_bytes == pytest.approx(other.peak_bytes, rel=0.01)
    assert size.seconds == pytest.approx(other.step_seconds, rel=0.05)
    assert dict(found.largest) == dict.fromkeys((0.0, 0.1, 0.2, 0.35), size)
    assert dict(on_h100.largest)[0.0] is not None


def test_the_largest_batch_is_found_by_bisection() -> None:
    def plan(batch: int) -> BatchSize:
        extra = max(0.0, (batch - 20) / 100)
        return BatchSize(batch, batch <= 50, extra, batch, batch, 1.0)

    found = largest_batches(plan)
    sizes = [size.batch for size in found.values() if size is not None]
    assert sizes == [20, 30, 40, 50]
    assert largest_batches(lambda batch: replace(plan(batch), fits=False))[0.35] is None


def test_a_search_that_ends_says_so() -> None:
    given = (torch.nn.Linear(8, 8), torch.zeros(4, 8))
    searched = fxremat.estimate(*given, device="h100", **QUICK)
    asked = fxremat.estimate(*given, device="h100", batch_sizes=[LARGEST], **QUICK)
    assert searched.largest[0][1] == searched.batches[-1]
    assert searched.batches[-1].batch == LARGEST
    assert "up to 65,536: larger ones fit" in str(searched)
    assert "larger ones fit" not in str(asked)
    assert "gradients of what the step returns" in str(searched)
    assert "tangents" not in str(searched)


def test_a_bound_holds_for_less_memory_too() -> None:
    plans = [Planned(Schedule(()), n, 9.0 - n, bound) for n, bound in enumerate((1.0, None, 3.0))]
    assert [plan.bound_seconds for plan in rising(plans)] == [3.0, None, 3.0]


def test_a_function_may_read_what_its_factory_made() -> None:
    found = fxremat.estimate(reads_a_tensor, device="l4", batch_sizes=[], **QUICK)
    assert found.peak_bytes > 0
    assert any("was allocated" in note for note in found.notes)


def test_an_op_of_the_model_that_fails_is_short() -> None:
    with pytest.raises(RuntimeError, match="reduction dim") as caught:
        fxremat.estimate(torch.nn.Linear(8, 8), torch.zeros(4, 9), device="l4", **QUICK)
    assert len(caught.traceback) < 12


def test_what_does_not_fit_is_said() -> None:
    tiny = replace(DEVICES["l4"], capacity_bytes=2**20, reserved_bytes=0)
    model, inputs = small.factory(64)
    found = fxremat.estimate(model, inputs, device=tiny, batch_sizes=[], **QUICK)
    assert found.at_budget is None
    assert not found.fits
    assert "no plan within" in str(found)


def test_a_page_needs_nothing_else(on_h100: fxremat.Estimate) -> None:
    page = on_h100.to_html()
    assert not re.search(r"(src|href)=|https?://|<script|@import", page)
    assert page.count("<circle") == len(on_h100.points)
    figures = json.loads(on_h100.to_json())
    assert figures["peak_bytes"] == on_h100.peak_bytes
    assert len(figures["points"]) == len(on_h100.points)


def test_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"{small.__name__}:factory"
    options = ["--device", "b200", "--budget", "0.9", "--batch-sizes", "3", "--points", "2"]
    monkeypatch.setattr(sys, "argv", ["fxremat", "estimate", path, "--json", *options])
    assert main() == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["at_budget"]["step_bytes"] <= figures["budget_bytes"] < figures["peak_bytes"]
    assert [each["batch"] for each in figures["batches"]] == [3]
    monkeypatch.setattr(sys, "argv", ["fxremat", "devices", "--json"])
    assert main() == 0
    assert {each["name"] for each in json.loads(capsys.readouterr().out)["devices"]} == {
        *DEVICES,
        "cpu",
    }
    monkeypatch.setattr(sys, "argv", ["fxremat", "estimate", f"{small.__name__}:nothing"])
    assert main() == 2
    assert "there is no factory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"device": "h1000"}, "unknown device 'h1000'"),
        ({"optimizer": "adamn't"}, "unknown optimizer"),
        ({"dtype": "int8"}, "unknown dtype"),
        ({"batch_sizes": [0]}, "a batch size is 0"),
        ({"points": 1}, "points is 1"),
        ({"model": small.no_pair}, "must return a pair"),
        ({"model": small.Small()}, "inputs are missing"),
        ({"model": torch.nn.ReLU(), "inputs": torch.ones(2)}, "nothing to differentiate"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, object], said: str) -> None:
    given = {"model": small.factory, "device": "h100", "batch_sizes": [], **QUICK, **wrong}
    with pytest.raises(fxremat.FxrematError, match=re.escape(said)):
        fxremat.estimate(**given)  # type: ignore[arg-type]


def test_specs_are_checked() -> None:
    with pytest.raises(fxremat.errors.OptionError, match="bandwidth is 0"):
        replace(DEVICES["h100"], bandwidth=0)
    with pytest.raises(fxremat.errors.OptionError, match="a 'cpu' or a 'cuda'"):
        replace(DEVICES["h100"], kind="tpu")
    halves = DEVICES["h100"].ceilings(torch.bfloat16).flops_per_s
    assert halves > DEVICES["h100"].ceilings(torch.float32, convolution=True).flops_per_s
