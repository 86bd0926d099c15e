"""The seam between the passes: it logs, dumps and checks; collecting, planning, compiling apart."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import fxremat
from fxremat import torch_hooks
from fxremat.errors import BudgetInfeasible
from fxremat.frontend.compiled import compiled_of
from fxremat.measure.profile_ops import OpProfiles
from fxremat.pipeline import observe
from fxremat.pipeline.passes import compile_plan, plan, read, weigh
from fxremat.pipeline.states import Planned, Traced
from fxremat.plan.options import make_options
from fxremat_solvers import RematProblem, Schedule, simulate

PASSES = ["capture", "units", "annotate", "classify", "lower", "solve", "rewrite", "verify"]
X = torch.randn(64, 16)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = F.dropout(F.gelu(layer(x)), 0.1)
        return self.norm(x).square().mean()


def test_every_pass_returns_a_sound_state() -> None:
    names: list[str] = []

    def note(name: str, state: Any, seconds: float) -> Any:
        names.append(name)
        return observe.check(name, state, seconds)

    optimized = fxremat.optimize(Net(), budget=1.0)
    backend = compiled_of(optimized).backend
    backend.between = (note,)
    optimized(X).backward()
    assert names == PASSES
    assert list(backend.history.graphs[0].seconds) == PASSES


def test_one_line_a_pass_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    optimized = fxremat.optimize(Net(), budget=1.0)
    with caplog.at_level(logging.INFO, logger="fxremat"):
        optimized(X).backward()
    lines = [r.getMessage() for r in caplog.records if r.name == "fxremat"]
    assert [line.split(":")[0] for line in lines] == PASSES


def test_every_graph_dumps_what_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FXREMAT_DUMP", str(tmp_path / "dump"))
    optimized = fxremat.optimize(Net(), budget=1.0)
    for rows in (64, 32):
        optimized(X[:rows]).backward()
    folders = sorted((tmp_path / "dump").iterdir())
    assert [folder.name for folder in folders] == ["graph-1", "graph-2"]
    files = {path.name.split("-", 1)[1]: path for path in folders[0].iterdir()}
    assert {"capture-joint.py", "annotate-annotations.txt", "classify-modes.txt"} <= set(files)
    problem = RematProblem.from_json(files["lower-problem.json"].read_text())
    schedule = Schedule.from_json(files["solve-schedule.json"].read_text())
    assert simulate(problem, schedule).cost > 0
    assert "gelu" in files["rewrite-forward.py"].read_text()


def test_one_graph_is_planned_under_many_budgets_and_compiled_once() -> None:
    net = Net()
    planned: list[Planned] = []

    def partition(joint: fx.GraphModule, _inputs: Any, **options: Any) -> Any:
        traced = Traced(joint, options["num_fwd_outputs"])
        profiles = OpProfiles()
        lowered = weigh(read(traced, profiles), "flops", profiles)
        peak = lowered.baseline.peak_bytes
        with pytest.raises(BudgetInfeasible) as caught:
            plan(lowered, make_options({"budget": 1000}))
        floor = caught.value.floor_bytes
        for share in (0.25, 0.5, 1.0):
            budget = floor + int(share * (peak - floor))
            planned.append(plan(lowered, make_options({"budget": budget})))
        written = compile_plan(planned[0])
        return written.graphs.forward, written.graphs.backward

    torch.manual_seed(3)
    net(X).backward()
    expected = [p.grad for p in net.parameters()]
    net.zero_grad()
    torch.manual_seed(3)
    backend = torch_hooks.make_aot_backend(partition, torch_hooks.boxed_executor)
    torch.compile(net, backend=backend, fullgraph=True)(X).backward()
    assert all(torch.equal(a, b.grad) for a, b in zip(expected, net.parameters(), strict=True))
    peaks = [p.plan.peak_bytes for p in planned]
    assert peaks == sorted(peaks)
    assert planned[0].plan.extra_seconds > planned[-1].plan.extra_seconds == 0
