"""What was planned at once is planned well when that is worth it, in the middle of training."""

from __future__ import annotations

import functools
import gc
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

import fxremat
from fxremat import torch_hooks
from fxremat.frontend.backend import Backend
from fxremat.frontend.compiled import Compiled
from fxremat.frontend.draft import Draft
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.frontend.history import CompiledGraph, Origin
from fxremat.pipeline.runner import State
from fxremat.pipeline.states import Planned
from fxremat.plan.options import make_options
from fxremat.plan.plan import Plan
from fxremat_solvers import Schedule, simulate
from tests.fxremat.frontend.test_history import Net, graphs_of, optimize, rows
from tests.numerics.steps import assert_same, run_steps


@dataclass
class Wasteful:
    """Puts the first plan's schedule in the place of the second, of a smaller shape."""

    plans: list[Plan] = field(default_factory=list[Plan])

    def __call__(self, name: str, state: State, _seconds: float) -> State:
        if name != "solve":
            return state
        assert isinstance(state, Planned)
        self.plans.append(state.plan)
        if len(self.plans) != 2:
            return state
        return Planned(with_schedule(state.plan, self.plans[0].schedule))


def with_schedule(plan: Plan, schedule: Schedule) -> Plan:
    replay = simulate(plan.problem, schedule)
    solution = replace(plan.solution, schedule=schedule, cost=replay.cost)
    return replace(plan, simulation=replay, solution=solution)


def compiled_by(net: nn.Module, *between: Callable[..., State]) -> Compiled:
    options = make_options({"budget": 0.6, "cost": "flops", "preset": "brief"})
    backend = Backend(options, WholeStep(fullgraph=True), between=between)
    return Compiled.of(net.forward, backend, net)


def graphs(compiled: Compiled) -> list[CompiledGraph]:
    return compiled.backend.history.graphs


def make_due(graph: CompiledGraph) -> None:
    """As after more calls than any search is worth."""
    graph.calls.count = 10**9


def test_it_is_due_when_the_calls_have_cost_a_search() -> None:
    optimized = optimize(Net(), budget=0.6)
    for batch in rows(512, 448):
        optimized(*batch).backward()
    graph = graphs_of(optimized)[1]
    assert graph.plan.extra_seconds > 0
    draft = Draft(graph, 2.5 * graph.plan.extra_seconds, lambda _args: (None, graph))
    due: list[bool] = []
    for count in range(5):
        graph.calls.count = count
        due.append(draft.is_due)
    assert due == [False, False, False, True, True]


@pytest.mark.parametrize("autocast", [False, True])
def test_training_goes_on_by_the_better_plan_bit_for_bit(autocast: bool) -> None:
    batches = rows(512, 384, 384, 384, 512, 384)
    untouched, own = Net(), Net()
    wasteful = Wasteful()
    compiled = compiled_by(own, wasteful)
    origins: list[Origin] = []

    def under_autocast(call: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return call(x)

    def call(x: torch.Tensor) -> torch.Tensor:
        if len(origins) == 3:
            make_due(graphs(compiled)[1])
        loss = under_autocast(compiled, x)
        origins.append(graphs(compiled)[-1].origin)
        return loss

    expected = run_steps(untouched, functools.partial(under_autocast, untouched), batches)
    assert_same(expected, run_steps(own, call, batches))
    graph = graphs(compiled)[1]
    assert [str(origin) for origin in origins[1:]] == ["quick", "quick", *["searched"] * 3]
    assert graph.calls.count == 10**9 + 2
    at_once = with_schedule(wasteful.plans[1], wasteful.plans[0].schedule)
    assert graph.plan.extra_seconds < at_once.extra_seconds
    assert graph.planning_s > graph.plan.solve_s, "the search counts, though it ran before"


def test_the_better_plan_keeps_its_budget() -> None:
    net = Net()
    compiled = compiled_by(net, Wasteful())
    batch = rows(384)[0]
    for each in (*rows(512), batch):
        compiled(*each).backward()
    make_due(graphs(compiled)[1])
    compiled(*batch).backward()
    plan = graphs(compiled)[1].plan
    net.zero_grad(set_to_none=True)
    measured = fxremat.measure_peak(lambda: compiled(*batch).backward()).peak_bytes
    assert measured <= plan.peak_bytes <= plan.budget_bytes


def test_ranks_draft_and_plan_well_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch_hooks, "shared_store", lambda: store)
    # The first rank's plan at once is a bad one; the second would find a better one.
    ranks = [compiled_by(Net(), Wasteful()), compiled_by(Net())]
    batch = rows(384)[0]
    for rank in ranks:
        for each in (*rows(512), batch):
            rank(*each).backward()
    first, second = (graphs(rank)[1] for rank in ranks)
    assert first.origin is second.origin is Origin.QUICK
    assert first.plan.schedule == second.plan.schedule
    for rank in ranks:
        make_due(graphs(rank)[1])
        rank(*batch).backward()
    better, other = (graphs(rank)[1] for rank in ranks)
    assert better.origin is other.origin is Origin.SEARCHED
    assert better.plan.schedule == other.plan.schedule != first.plan.schedule


def test_a_plan_that_a_search_does_not_improve_stays() -> None:
    net = Net()
    compiled = compiled_by(net)
    for batch in rows(512, 448):
        compiled(*batch).backward()
    before = graphs(compiled)[1]
    make_due(before)
    for batch in rows(448, 448):
        compiled(*batch).backward()
    after = graphs(compiled)[1]
    assert after.origin is Origin.KEPT
    assert after.plan is before.plan


def test_a_search_that_fails_leaves_the_plan_and_is_said_once() -> None:
    failing = False

    def fail(name: str, state: State, _seconds: float) -> State:
        if failing and name == "annotate":
            raise ValueError("no such thing")
        return state

    batches = rows(512, 384, 384, 384)
    untouched, own = Net(), Net()
    expected = run_steps(untouched, untouched, batches)
    compiled = compiled_by(own, Wasteful(), fail)

    def call(x: torch.Tensor) -> torch.Tensor:
        return compiled(x)

    run_steps(own, call, batches[:2])
    own.load_state_dict(Net().state_dict())
    make_due(graphs(compiled)[1])
    failing = True
    with pytest.warns(UserWarning, match=r"could not be planned well \(ValueError: no such thing"):
        assert_same(expected, run_steps(own, call, batches))
    failing = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(*rows(300)[0]).backward()
    origins = [graph.origin for graph in graphs(compiled)]
    assert origins == [Origin.SEARCHED, Origin.KEPT, Origin.SEARCHED], "none at once any more"


def test_it_waits_while_a_profiler_runs() -> None:
    """Which measuring needs for itself."""
    net = Net()
    compiled = compiled_by(net)
    for batch in rows(512, 448):
        compiled(*batch).backward()
    make_due(graphs(compiled)[1])
    batch = rows(448)[0]
    fxremat.measure_peak(lambda: compiled(*batch).backward())
    assert graphs(compiled)[1].origin is Origin.QUICK
    compiled(*batch).backward()
    assert graphs(compiled)[1].origin is Origin.KEPT


@pytest.mark.parametrize("number", [int, float])
def test_numbers_that_change_are_searched_for_at_once(number: type[int] | type[float]) -> None:
    """Traced again from the numbers of one call they would be fixed."""
    net = Net()

    def loss(x: torch.Tensor, weight: float) -> torch.Tensor:
        return net(x) * weight

    optimized = optimize(loss)
    for (x,), weight in zip(rows(512, 512, 448), (2, 3, 4), strict=True):
        optimized(x, number(weight)).backward()
    assert [graph.origin for graph in graphs_of(optimized)] == [Origin.SEARCHED] * 3


def test_the_backend_of_torch_compile_does_the_same() -> None:
    batches = rows(512, 384, 384, 384)
    untouched, own = Net(), Net()
    expected = run_steps(untouched, untouched, batches)
    options = make_options({"budget": 0.6, "cost": "flops", "preset": "brief"})
    backend = Backend(options, WholeStep(fullgraph=False), between=(Wasteful(),))
    compiled = torch.compile(own, backend=backend)

    def call(x: torch.Tensor) -> torch.Tensor:
        found = backend.history.graphs
        if len(found) == 2 and found[1].calls.count == 2:
            make_due(found[1])
        return compiled(x)

    assert_same(expected, run_steps(own, call, batches))
    assert [graph.origin for graph in backend.history.graphs] == [Origin.SEARCHED] * 2


def test_nothing_is_kept_of_a_plan_that_was_replaced_or_forgotten() -> None:
    compiled = compiled_by(Net(), Wasteful())
    for batch in rows(512, 384):
        compiled(*batch).backward()
    at_once = weakref.ref(graphs(compiled)[1])
    make_due(graphs(compiled)[1])
    compiled(*rows(384)[0]).backward()
    gc.collect()
    assert at_once() is None, "nor Dynamo's graph, which goes with it"
    searched = weakref.ref(graphs(compiled)[1])
    compiled(*rows(448)[0]).backward()
    waiting = weakref.ref(graphs(compiled)[2])
    del compiled
    gc.collect()
    assert (searched(), waiting()) == (None, None)
