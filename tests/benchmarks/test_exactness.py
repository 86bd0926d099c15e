"""The command behind the README's table of exactness, on a small model."""

from __future__ import annotations

from benchmarks.exactness import run_model


def test_rows_of_a_small_model() -> None:
    whole, floor, below = run_model("mlp-gelu", "tiny", (1.0, "floor", 0.01))
    assert below["status"] == "below the floor"
    for row in (whole, floor):
        assert row["status"] == "ok"
        assert row["bitwise"], row["comparison"]
        assert row["measured_peak_bytes"] == row["planned_peak_bytes"]
        assert row["within_budget"]
    assert whole["ratio_to_aot_eager"]["rounds"] >= 4
    assert floor["clipping_same"]
    assert floor["budget_bytes"] < whole["budget_bytes"]
