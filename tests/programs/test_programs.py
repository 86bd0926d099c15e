"""Random programs train bit for bit and within their budgets; those that once failed still do.

`FXREMAT_PROGRAMS=1000 pytest -m slow tests/programs` runs as many.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.programs.many import QUIET, SHARES, check_many
from tests.programs.outcome import check
from tests.programs.programs import Program, programs


@settings(max_examples=6, **QUIET)
@given(program=programs(), share=st.sampled_from(SHARES))
def test_a_few_random_programs(program: Program, share: float) -> None:
    check(program, share)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_random_programs() -> None:
    count = int(os.environ.get("FXREMAT_PROGRAMS", "10000"))
    assert check_many(count)["programs"] > 0
