"""The command that sets measured steps of the portfolio's plans against single solvers'."""

from __future__ import annotations

import pytest

from benchmarks import better_plans, zoo
from benchmarks.better_plans import SINGLE, measure, table
from tests.numerics.steps import greedy_least, probed


def test_rows_of_a_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(better_plans, "_ROUNDS", 4)
    workload = zoo.get("two-tower").make("tiny", seed=0)
    step, batch = workload.step_module(), workload.batch(0)
    # Single solvers get down to it, and near the peak there is nothing to choose.
    plan = probed(step, batch)
    least, peak = greedy_least(plan.problem), plan.baseline_peak_bytes
    row = measure("two-tower", "tiny", (least + 0.6 * (peak - least)) / peak)
    assert row["status"] == "ok"
    assert row["predicted"] >= 1
    assert row["ratio_to_eager"]["rounds"] >= 4
    assert set(row["single"]) == set(SINGLE)
    found = [single for single in row["single"].values() if single is not None]
    assert found, "no single solver fits nine tenths of the peak"
    for single in found:
        assert single["ratio"]["median"] > 0
        assert single["predicted_ratio"] > 0
    assert "two-tower" in table([row])


def test_a_budget_below_the_floor_has_no_line() -> None:
    row = measure("mlp-gelu", "tiny", 0.01)
    assert row["status"] == "below the floor"
    assert "mlp-gelu" not in table([row])
