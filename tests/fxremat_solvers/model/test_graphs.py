"""A problem as a networkx graph: nothing of it is lost, and equal structure has one hash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given, settings

from fxremat_solvers import Op, RematProblem, Rerun, Value, structure_hash, to_networkx
from fxremat_solvers.testing import transformer
from tests.fxremat_solvers.random_problems import problems


@given(problems(20))
@settings(max_examples=30, deadline=None)
def test_ops_and_values_are_nodes_and_the_flow_is_acyclic(problem: RematProblem) -> None:
    graph = to_networkx(problem)
    kinds = [kind for _, kind in graph.nodes(data="kind")]
    assert kinds.count("op") == len(problem.ops)
    assert kinds.count("value") == len(problem.values)
    assert nx.is_directed_acyclic_graph(graph)
    order = [n for n in nx.lexicographical_topological_sort(graph) if n.startswith("op")]
    assert len(order) == len(problem.ops)
    for value, maker in enumerate(problem.producer):
        assert list(graph.predecessors(f"value{value}")) == ([] if maker < 0 else [f"op{maker}"])


def test_what_only_a_rerun_reads_is_marked() -> None:
    state = Value("state", 5, lazy=True)
    again = Rerun((0, 2), (1,), 1.0)
    problem = RematProblem(
        (Op("draw", (0,), (1, 2), 1.0, 0, (again,)),), (Value("x", 1), Value("y", 1), state), (0,)
    )
    graph = to_networkx(problem)
    assert graph.edges["value2", "op0"]["rerun"]
    assert not graph.edges["value0", "op0"]["rerun"]


def test_graphml_keeps_all_sizes(tmp_path: Path) -> None:
    graph = to_networkx(transformer(1))
    nx.write_graphml(graph, tmp_path / "problem.graphml")
    read = nx.read_graphml(tmp_path / "problem.graphml")
    assert dict(read.nodes(data="nbytes")) == dict(graph.nodes(data="nbytes"))


def test_names_and_costs_are_no_structure() -> None:
    problem = transformer(2)
    ops = tuple(replace(op, name=f"{i}", cost=i + 1.0) for i, op in enumerate(problem.ops))
    values = tuple(replace(value, name=f"{i}") for i, value in enumerate(problem.values))
    assert structure_hash(replace(problem, ops=ops, values=values)) == structure_hash(problem)


@pytest.mark.parametrize("change", ["size", "rerun", "layer"])
def test_another_structure_has_another_hash(change: str) -> None:
    problem = transformer(2)
    first, *rest = problem.values
    index = next(i for i, op in enumerate(problem.ops) if op.reruns)
    once = replace(problem.ops[index], reruns=())
    changed = {
        "size": lambda: replace(problem, values=(replace(first, nbytes=first.nbytes + 1), *rest)),
        "rerun": lambda: replace(
            problem, ops=(*problem.ops[:index], once, *problem.ops[index + 1 :])
        ),
        "layer": lambda: transformer(3),
    }[change]()
    assert structure_hash(changed) != structure_hash(problem)
