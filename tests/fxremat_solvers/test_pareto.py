"""The front: from the floor up to the baseline's peak."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fxremat_solvers import ArgumentError, pareto
from fxremat_solvers.testing import chain, unet


def test_it_rises_in_peak_and_falls_in_cost():
    front = pareto(unet(2), points=6, solver="greedy")
    assert len(front) >= 3
    for lower, higher in pairwise(front):
        assert lower.peak_bytes < higher.peak_bytes
        assert lower.cost > higher.cost


def test_a_front_of_one_point_is_refused():
    with pytest.raises(ArgumentError, match="points"):
        pareto(chain(4), points=1)
