"""Random programs train bit for bit and within their budgets; those that once failed still do.

`FXREMAT_PROGRAMS=1000 pytest -m slow tests/programs` runs as many.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.programs.outcome import check
from tests.programs.programs import Program, programs

SHARES = (0.0, 0.3, 1.0)
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=12, **QUIET)
@given(program=programs(), share=st.sampled_from(SHARES))
def test_a_few_random_programs(program: Program, share: float) -> None:
    check(program, share)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_random_programs() -> None:
    @settings(
        max_examples=int(os.environ.get("FXREMAT_PROGRAMS", "10000")),
        derandomize=False,
        print_blob=True,
        **QUIET,
    )
    @given(program=programs(), share=st.sampled_from(SHARES))
    def each(program: Program, share: float) -> None:
        check(program, share)

    each()
