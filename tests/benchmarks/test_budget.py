"""What the README says of torch's own budget, at a small size, by the commands that it names."""

from __future__ import annotations

from benchmarks import budget_curve, budget_dropout


def test_gradients_under_dropout() -> None:
    plain, theirs, ours = budget_dropout.measure("eager")
    assert theirs["loss_equal"]
    assert theirs["relative_error"] > 0.1
    assert ours["loss_equal"]
    assert ours["relative_error"] == 0
    assert ours["rng_equal"]
    assert ours["peak_bytes"] <= budget_dropout.SHARE * plain["peak_bytes"]
    assert budget_dropout.table([plain, theirs, ours]).count("the same bits") == 2


def test_peaks_of_budgets() -> None:
    layered = budget_curve.LAYERED
    names = [budget_curve.PLAIN, layered, "torch 0.1", f"fxremat at {layered}"]
    rows = list(budget_curve.measure("eager", names, layers=2, rounds=1, peaks={}))
    plain, by_hand, _, ours = (row["peak_bytes"] for row in rows)
    assert ours <= by_hand < plain
    assert {row["relative_error"] for row in rows} == {0.0}
    assert len(budget_curve.table(rows).splitlines()) == 5
