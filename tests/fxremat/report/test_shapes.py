"""The report lists every input shape with its plan."""

from __future__ import annotations

import json

import fxremat
from fxremat.frontend.history import Origin
from fxremat.report.shapes import planned_shapes
from tests.fxremat.frontend.test_history import Net, graphs_of, optimize, rows


def test_every_shape_is_listed_with_its_plan() -> None:
    optimized = optimize(Net())
    for batch in rows(512, 448, 448):
        optimized(*batch).backward()
    report = fxremat.explain(optimized)
    first, second = report.shapes
    assert [first.input_shapes, second.input_shapes] == [((512, 32),), ((448, 32),)]
    assert [first.origin, second.origin] == [Origin.SEARCHED, Origin.QUICK]
    assert [first.calls, second.calls] == [1, 2]
    assert [first.graph, second.graph] == [0, 1]
    assert second.planned_peak_bytes == report.planned_peak_bytes
    assert second.extra_seconds == report.extra_seconds
    assert first.planned_peak_bytes == fxremat.explain(optimized, graph=0).planned_peak_bytes
    assert report.origin == "quick"
    text = str(report)
    assert "Plans, by input shape" in text
    assert "448x32" in text
    fields = json.loads(report.to_json())
    assert [shape["origin"] for shape in fields["shapes"]] == ["searched", "quick"]


def test_one_shape_needs_no_list() -> None:
    optimized = optimize(Net(), example_inputs=rows(64)[0])
    report = fxremat.explain(optimized)
    assert "Plans, by input shape" not in str(report)
    assert [shape.calls for shape in report.shapes] == [0], "planned ahead, not called"


def test_without_graphs_there_is_nothing_to_list() -> None:
    assert planned_shapes(graphs_of(optimize(Net()))) == ()
