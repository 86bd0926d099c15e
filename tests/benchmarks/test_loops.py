"""The benchmark of loops, at a small size: every method's row, and gradients that are the same."""

from __future__ import annotations

from pathlib import Path

from benchmarks import loops, records


def test_rows(tmp_path: Path) -> None:
    for problem in (loops.heat(8), loops.ode(25, rows=4, width=8)):
        loops.measure(problem, 25, 1, tmp_path)
    rows = [row for row in records.load(tmp_path).values() if row["method"] != "odeint_adjoint"]
    assert len(rows) == 2 * 10
    assert all(row["bitwise"] and row["error"] == 0 for row in rows)
    taken = {(row["problem"], row["method"]): row["evaluations"] for row in rows}
    for problem in ("heat", "rk4 neural ode"):
        assert taken[problem, "plain"] == 25
        assert taken[problem, "checkpoint, sqrt(n)"] == 50
        assert taken[problem, "fxremat.loop, uniform"] == 45
    assert loops.table(tmp_path).count("| bitwise |") == len(rows)
