"""`explain`: figures that add up, a table of the model's own lines, JSON, a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fxremat
from fxremat.frontend.compiled import compiled_of
from fxremat.report.front import front_of
from fxremat.report.orders import Order
from fxremat.report.trace import trace_of
from tests.fxremat.report.models import Stack
from tests.numerics.steps import tight_budget


@pytest.fixture(scope="module")
def planned() -> Callable[..., Any]:
    stack, batch = Stack(), (torch.randn(512, 16),)
    budget = tight_budget(stack, batch)
    return fxremat.optimize(stack, budget=budget, example_inputs=batch)


@pytest.fixture(scope="module")
def report(planned: Callable[..., Any]) -> fxremat.Report:
    return fxremat.explain(planned)


def test_figures_agree(report: fxremat.Report) -> None:
    assert report.planned_peak_bytes <= report.budget_bytes < report.baseline_peak_bytes
    assert max(report.timeline_bytes) == report.planned_peak_bytes
    assert max(report.baseline_timeline_bytes) == report.baseline_peak_bytes
    assert sum(row.recomputed_seconds for row in report.rows) == pytest.approx(report.extra_seconds)
    assert sum(row.kept_bytes for row in report.rows) == report.residual_bytes
    assert 0 <= report.lower_bound_seconds <= report.extra_seconds + 1e-12


def test_identical_layers_are_one_row(report: fxremat.Report) -> None:
    rows = [row for row in report.rows if row.module == "blocks.*"]
    assert rows
    assert max(row.layers for row in rows) > 1
    assert all("models.py" in row.source for row in rows)
    nbytes = [row.kept_bytes + row.recomputed_bytes for row in report.rows]
    assert nbytes == sorted(nbytes, reverse=True)


def test_json_and_text(report: fxremat.Report) -> None:
    fields = json.loads(report.to_json())
    assert fields["budget_bytes"] == report.budget_bytes
    assert fields["rows"][0]["module"] == report.rows[0].module
    assert "timelines" not in fields
    lines = str(report).splitlines()
    assert any("blocks.*" in line for line in lines)
    assert max(map(len, lines)) <= 100
    assert any("What holds the planned peak" in line for line in lines)


def test_plot(report: fxremat.Report, tmp_path: Path) -> None:
    path = tmp_path / "timeline.png"
    report.plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_floor_is_one_figure() -> None:
    stack, x = Stack(), torch.randn(512, 16)
    probe = fxremat.optimize(stack, budget=1.0, example_inputs=x)
    assert fxremat.explain(probe).floor_bytes is None, "nothing is searched for here"
    floor = fxremat.floor(probe)
    assert fxremat.explain(probe).floor_bytes == floor
    with pytest.raises(fxremat.BudgetInfeasible) as caught:
        fxremat.optimize(stack, budget="1B", example_inputs=x)
    assert caught.value.floor_bytes == floor
    met = fxremat.optimize(stack, budget=floor, example_inputs=x)
    assert fxremat.explain(met).planned_peak_bytes <= floor


def test_what_is_alive_adds_up(report: fxremat.Report) -> None:
    timelines = report.timelines
    for order in (timelines.baseline, timelines.planned):
        nbytes = list(order.workspace_bytes)
        for span in order.spans:
            for step in range(span.begin, span.end + 1):
                nbytes[step] += timelines.values[span.value].nbytes
        assert tuple(nbytes) == order.nbytes
    assert not any(timelines.baseline.again)
    assert sum(timelines.planned.again) == sum(row.runs for row in report.rows)


def test_a_trace_has_every_run_and_the_memory(planned: Callable[..., Any]) -> None:
    plan = compiled_of(planned).backend.history.graphs[-1].plan
    events = json.loads(trace_of(plan))["traceEvents"]
    runs = [each for each in events if each["ph"] == "X"]
    assert len(runs) == len(plan.problem.ops) + len(plan.schedule)
    again = [each for each in runs if each["args"]["recomputed"]]
    assert len(again) == len(plan.schedule) - len(plan.problem.ops) > 0
    memory = [each["args"]["bytes"] for each in events if each["ph"] == "C" and each["pid"] == 2]
    assert max(memory) == plan.peak_bytes
    by_process = [[e for e in runs if e["pid"] == process] for process in (1, 2)]
    for track in by_process:
        ends = [each["ts"] + each["dur"] for each in track]
        assert all(
            begin["ts"] >= end - 1e-6 for begin, end in zip(track[1:], ends[:-1], strict=True)
        ), "runs follow each other"


def test_a_front_is_shown(planned: Callable[..., Any], report: fxremat.Report) -> None:
    plan = compiled_of(planned).backend.history.graphs[-1].plan
    front = front_of(plan, points=2, time_limit_s=3)
    assert front[-1].extra_seconds == pytest.approx(0)
    assert all(point.lower_bound_seconds <= point.extra_seconds for point in front)
    shown = report.with_front(front)
    assert "What budgets cost" in str(shown)
    assert len(json.loads(shown.to_json())["front"]) == len(front)


def test_orders_hold_no_graph(report: fxremat.Report) -> None:
    assert isinstance(report.timelines.planned, Order)
    json.dumps(dataclasses.asdict(report.timelines))
