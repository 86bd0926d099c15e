"""Minimum cuts: of the value that they cross, by capacities rounded down."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers.bounds.min_cut import SINK, SOURCE, minimum_cut, network


def test_the_cheaper_side_is_paid() -> None:
    """a on costs 5, b off costs 3, a on needs b on; a off costs 4."""
    a, b = 2, 3
    tails = np.array([a, SOURCE, a, SOURCE])
    heads = np.array([SINK, b, b, a])
    value, on = minimum_cut(network(4, tails, heads), np.array([5.0, 3.0, np.inf, 4.0]))
    assert value == 4
    assert not on[a]


def test_capacities_are_rounded_down() -> None:
    tails, heads = np.array([SOURCE, 2]), np.array([2, SINK])
    value, _ = minimum_cut(network(3, tails, heads), np.array([2.9, 7.0]))
    assert value == 2


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 200))
def test_what_crosses_the_cut_is_its_value(seed: int, n_nodes: int, n_arcs: int) -> None:
    """Arcs both ways, several beside each other and empty ones included."""
    rng = np.random.default_rng(seed)
    tails, heads = rng.integers(0, n_nodes, (2, n_arcs))
    capacities = rng.integers(0, 9, n_arcs) * 1.0
    value, on = minimum_cut(network(n_nodes, tails, heads), capacities)
    assert on[SOURCE]
    assert not on[SINK]
    assert value == capacities[on[tails] & ~on[heads]].sum()
