"""Where ops run beside a chain: what networkx says of ancestors and descendants."""

from __future__ import annotations

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import RematProblem
from fxremat_solvers.bounds.cost_bound import main_chain
from fxremat_solvers.bounds.positions import first_after, last_before
from tests.fxremat_solvers.budgets import share_of_peak
from tests.fxremat_solvers.random_problems import problems


@given(problems(20), st.data())
@settings(max_examples=60, deadline=None)
def test_an_op_runs_after_what_leads_to_it_and_before_what_it_leads_to(
    problem: RematProblem, data: st.DataObject
):
    whole = main_chain(problem, share_of_peak(problem, 0.5))
    kept = data.draw(st.sets(st.sampled_from(whole)))
    chain = [op for op in whole if op in kept]
    flow: nx.DiGraph[int] = nx.DiGraph()
    flow.add_nodes_from(range(len(problem.ops)))
    flow.add_edges_from((maker, k) for k, some in enumerate(makers_of(problem)) for maker in some)
    last, first = last_before(problem, chain), first_after(problem, chain)
    for op in range(len(problem.ops)):
        before, after = nx.ancestors(flow, op), nx.descendants(flow, op)
        assert last[op] == max((j for j, v in enumerate(chain, 1) if v in before), default=0)
        past = len(chain) + 1
        assert first[op] == min((j for j, v in enumerate(chain, 1) if v in after), default=past)


def makers_of(problem: RematProblem) -> list[set[int]]:
    """For each op the ops that make what its first run reads, and its reruns."""
    producer = problem.producer
    makers = [{producer[v] for v in op.inputs} - {-1} for op in problem.ops]
    for k in problem.differing:
        makers[k] |= {producer[v] for v in problem.reruns[k].inputs} - {-1, k}
    return makers
