"""Operators of every kind in a step that recomputes: bits of torch, bytes of the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("expecttest", reason="torch's database of operators needs it")

from benchmarks import records
from tests.operators.exceptions import EXCEPTIONS, Known, expected_kind, surprises
from tests.operators.outcome import FINE, outcome_of
from tests.operators.runner import rows_of, run
from tests.operators.samples import Case, all_cases

SOME = [
    # Pointwise, with other numbers and types beside them.
    "mul-bfloat16-1",
    # Reductions and scans.
    "var_mean-float32-1",
    # Products.
    "addmm-bfloat16-1",
    # Layers.
    "nn.functional.max_pool2d-float32-0",
    "nn.functional.scaled_dot_product_attention-float32-1",
    # Random numbers.
    "bernoulli-float32-0",
    # Views, indices, sizes.
    "as_strided-float32-1",
    "sort-float32-1",
    # Linear algebra and Fourier transforms, whose kernels have layouts of their own.
    "linalg.lu-float32-1",
    "linalg.cholesky-complex64-0",
    "fft.rfft2-float32-1",
    "stft-float32-0",
    # Results whose sizes depend on the data.
    "narrow-float32-1",
    # A workspace that depends on the data.
    "masked_scatter-complex64-1",
]


@pytest.mark.parametrize("name", SOME)
def test_some(name: str) -> None:
    case = Case.named(name)
    outcome = outcome_of(case)
    assert outcome.kind == (expected_kind(case) or "ok"), outcome


def test_names_are_of_one_case_each() -> None:
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)
    assert set(SOME) <= set(names)
    assert all(Case.named(name).name == name for name in names)


def test_exceptions_are_refusals_of_ops_that_there_are() -> None:
    cases = list(all_cases())
    assert len(EXCEPTIONS) <= 20
    for known in EXCEPTIONS:
        assert known.kind == "refused"
        assert known.reason
        assert all(any(c.op == op and known.covers(c) for c in cases) for op in known.ops)


def test_a_process_that_ends_loses_one_case() -> None:
    rows = list(rows_of(["sin-float32-0", "no such op-float32-0"], limit_s=100))
    assert [row["kind"] for row in rows] == ["ok", "crash"]


def test_the_list_only_shrinks() -> None:
    exceptions = (Known(("cos",), "refused", "for a reason"),)
    row = {"reason": "", "kind": "ok"}
    passes, fails = {**row, "name": "cos-float32-0"}, {**row, "name": "sin-float32-0"}
    assert not surprises([{**passes, "kind": "refused"}, fails], exceptions)
    assert len(surprises([passes, {**passes, "kind": "crash"}], exceptions)) == 2
    assert len(surprises([{**fails, "kind": "wrong bits"}], exceptions)) == 1


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_all(tmp_path: Path) -> None:
    run([case.name for case in all_cases()], tmp_path, {}, limit_s=120)
    rows = records.load(tmp_path).values()
    assert any(row["kind"] in FINE for row in rows)
    assert not surprises(rows)
