"""The benchmark of loops, at a small size: every method's row, and gradients that are the same."""

from __future__ import annotations

from pathlib import Path

from benchmarks import loops, records


def test_rows(tmp_path: Path) -> None:
    loops.measure(loops.ode(25, rows=4, width=8), 25, 1, tmp_path, executors=())
    rows = [row for row in records.load(tmp_path).values() if row["method"] != "odeint_adjoint"]
    assert len(rows) == 10
    assert all(row["bitwise"] and row["error"] == 0 for row in rows)
    taken = {(row["problem"], row["method"]): row["evaluations"] for row in rows}
    for method, evaluations in (
        ("plain", 25),
        ("checkpoint, sqrt(n)", 50),
        ("fxremat.loop, uniform", 45),
    ):
        assert taken["rk4 neural ode", method] == evaluations
    assert loops.table(tmp_path).count("| bitwise |") == len(rows)
