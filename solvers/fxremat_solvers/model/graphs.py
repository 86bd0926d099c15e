"""A problem as a networkx graph: to draw it, to write it as GraphML, to compare its structure."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from fxremat_solvers.model.problem import RematProblem

if TYPE_CHECKING:
    import networkx as nx


def to_networkx(problem: RematProblem) -> nx.DiGraph[str]:
    """The bipartite graph of ops (``op0``, ...) and values (``value0``, ...), edges as data flows.

    Nodes carry `kind`, `name` and what the format says of them; sizes in bytes, costs in the
    problem's unit. `role` of a value is "input", "output" or "". Edges into an op that only its
    reruns read have ``rerun=True``. All attributes are plain, so GraphML takes them.
    """
    import networkx as nx  # Here: it takes longer to import than most problems take to solve.

    graph: nx.DiGraph[str] = nx.DiGraph()
    roles = dict.fromkeys(problem.inputs, "input")
    roles |= dict.fromkeys(problem.outputs, "output")
    for index, value in enumerate(problem.values):
        graph.add_node(
            f"value{index}",
            kind="value",
            name=value.name,
            nbytes=value.nbytes,
            lazy=value.lazy,
            role=roles.get(index, ""),
        )
    for index, op in enumerate(problem.ops):
        graph.add_node(
            f"op{index}",
            kind="op",
            name=op.name,
            cost=op.cost,
            workspace_bytes=op.workspace_bytes,
            reruns=len(op.reruns),
        )
        for value in dict.fromkeys(value for rerun in op.reruns for value in rerun.inputs):
            graph.add_edge(f"value{value}", f"op{index}", rerun=True)
        for value in op.inputs:
            graph.add_edge(f"value{value}", f"op{index}", rerun=False)
        for value in op.outputs:
            graph.add_edge(f"op{index}", f"value{value}", rerun=False)
    return graph


def structure_hash(problem: RematProblem) -> str:
    """A hash that equal graphs share, whatever their ops and values are called or cost.

    Weisfeiler and Lehman's over sizes, workspaces and the ways in which ops rerun (Shervashidze et
    al., JMLR 2011). Different graphs may share it; equal ones always do.
    """
    import networkx as nx

    graph: Any = to_networkx(problem)
    for _, of_node in graph.nodes(data=True):
        facts = ("kind", "nbytes", "lazy", "role", "workspace_bytes", "reruns")
        of_node["label"] = repr([of_node.get(fact) for fact in facts])
    with warnings.catch_warnings():
        # It says that directed graphs had other hashes before 3.5, which is required.
        warnings.filterwarnings("ignore", message="The hashes produced")
        return nx.weisfeiler_lehman_graph_hash(
            graph, node_attr="label", edge_attr="rerun", iterations=3
        )
