"""Minimum cuts: of the value that they cross, by capacities rounded down."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fxremat_solvers.bounds.min_cut import SINK, SOURCE, Arcs, minimum_cut


def cut(n_nodes: int, arcs: Iterable[tuple[int, int, float]]) -> tuple[int, NDArray[np.bool_]]:
    written = Arcs()
    while written.node() < n_nodes - 1:
        pass
    for tail, head, cost in arcs:
        written.arc(tail, head, cost)
    net, (costs,) = written.network()
    return minimum_cut(net, costs)


def test_the_cheaper_side_is_paid() -> None:
    """a on costs 5, b off costs 3, a on needs b on; a off costs 4."""
    a, b = 2, 3
    value, on = cut(4, [(a, SINK, 5.0), (SOURCE, b, 3.0), (a, b, np.inf), (SOURCE, a, 4.0)])
    assert value == 4
    assert not on[a]


def test_capacities_are_rounded_down() -> None:
    value, _ = cut(3, [(SOURCE, 2, 2.9), (2, SINK, 7.0)])
    assert value == 2


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 40), st.integers(1, 200))
def test_what_crosses_the_cut_is_its_value(seed: int, n_nodes: int, n_arcs: int) -> None:
    """Arcs both ways, several beside each other and empty ones included."""
    rng = np.random.default_rng(seed)
    tails, heads = rng.integers(0, n_nodes, (2, n_arcs))
    capacities = rng.integers(0, 9, n_arcs) * 1.0
    arcs = zip(tails.tolist(), heads.tolist(), capacities.tolist(), strict=True)
    value, on = cut(n_nodes, arcs)
    assert on[SOURCE]
    assert not on[SINK]
    assert value == capacities[on[tails] & ~on[heads]].sum()
