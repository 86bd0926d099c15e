"""Large values that are summed up in many steps."""

from __future__ import annotations

from fxremat_solvers.model.accumulations import sums_of
from tests.fxremat_solvers.budgets import share_of_peak
from tests.fxremat_solvers.small_graphs import block_stack, unrolled


def test_sums_begin_with_their_first_step_that_takes_the_most() -> None:
    problem = unrolled(5)
    found = sums_of(problem, share_of_peak(problem, 0.5))
    # The very first step of a sum only copies: the second takes two sums and a gradient.
    assert [problem.ops[k].name for k in found.begin] == ["sum0_3", "sum1_3"]
    assert found.steps == 4
    assert not sums_of(block_stack(3), 10**6).begin
