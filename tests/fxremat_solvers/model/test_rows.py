"""Rows: a schedule of ops as one that needs no history, and back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import simulate
from fxremat_solvers.model.rows import rows_of
from tests.fxremat_solvers.random_problems import random_reruns, with_reruns


@given(st.integers(0, 10**6), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_rows_are_the_runs_of_the_oracle(seed: int, n_ops: int):
    problem = random_reruns(seed, n_ops)
    steps = with_reruns(problem, seed)
    rows = rows_of(problem)
    in_rows = rows.of(steps)
    for row, run in zip(in_rows, simulate(problem, steps).runs, strict=True):
        did = rows.runs[row]
        assert (did.inputs, did.outputs, did.cost) == (run.inputs, run.outputs, run.cost)
    assert rows.ops(in_rows) == steps
