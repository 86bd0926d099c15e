"""The command behind the README's table of exactness, on a small model."""

from __future__ import annotations

from benchmarks.exactness import run_model


def test_rows_of_a_small_model() -> None:
    rows = run_model("mlp-gelu", "tiny", (1.0, 0.5, "floor", 0.01))
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "below the floor"]
    for row in rows[:3]:
        assert row["bitwise"], row["comparison"]
        assert row["measured_peak_bytes"] == row["planned_peak_bytes"]
        assert row["within_budget"]
    assert rows[0]["ratio_to_aot_eager"]["rounds"] >= 4
    assert rows[1]["clipping_same"]
    assert rows[2]["budget_bytes"] < rows[1]["budget_bytes"]
