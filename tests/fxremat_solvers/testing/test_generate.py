"""Generated problems: the same for a seed, of the size and shape that was asked for."""

from __future__ import annotations

import pytest

from fxremat_solvers import RematProblem
from fxremat_solvers.testing import (
    chain,
    dag,
    layered,
    layered_network,
    resnet,
    transformer,
    unet,
    vgg,
)


@pytest.mark.parametrize("make", [layered, layered_network])
def test_a_seed_names_a_graph_of_as_many_ops(make):
    assert make(60, seed=1) == make(60, seed=1)
    assert make(60, seed=1) != make(60, seed=2)
    assert len(make(60, seed=1).ops) == 60


@pytest.mark.parametrize("problem", [chain(3), transformer(1), resnet(), unet(2), vgg()])
def test_training_graphs_have_a_backward_part(problem: RematProblem):
    assert problem.first_backward_op is not None
    assert 0 < problem.first_backward_op < len(problem.ops)
    assert problem.outputs


def test_edges_are_reads_and_what_nobody_reads_is_an_output():
    problem = dag([2, 0, 1], [(2, 0), (2, 1)], [5, 6, 7], [1, 2, 3])
    assert [(op.name, op.inputs) for op in problem.ops] == [
        ("op2", ()),
        ("op0", (0,)),
        ("op1", (0,)),
    ]
    assert problem.outputs == (1, 2)
