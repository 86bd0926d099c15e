"""What torch's selective checkpointing marks as MUST_RECOMPUTE is made again, at any budget."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

import fxremat
from fxremat import Policy
from fxremat.frontend.compiled import compiled_of
from fxremat.graph import Operation
from fxremat.pipeline.passes import Classify
from fxremat.pipeline.states import Annotated
from fxremat.plan.plan import Plan
from fxremat.report.explain import residuals
from fxremat.step.parts import part_plan
from fxremat_solvers import ScheduleError, baseline, simulate

HONOUR = Policy(regions="honour")
PREFER = CheckpointPolicy.PREFER_RECOMPUTE
Context = Callable[[], object]
X = torch.randn(128, 8, 4)


class Block(nn.Module):
    """A checkpointed block with BatchNorm and dropout; None for a `context`: not checkpointed."""

    def __init__(self, context: Context | None, *, breaks: bool) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 16), nn.Linear(16, 4)
        self.norm = nn.BatchNorm1d(8)
        self.context, self.breaks = context, breaks

    def region(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.dropout(self.outer(F.gelu(self.norm(self.inner(x)))).exp(), 0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.context is None:
            return self.region(x)
        x = checkpoint(self.region, x, use_reentrant=False, context_fn=self.context)
        if self.breaks:
            torch._dynamo.graph_break()
        return x


class Net(nn.Module):
    def __init__(self, context: Context, *, breaks: bool = False) -> None:
        super().__init__()
        self.first, self.second = (Block(context, breaks=breaks) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)).square().mean()


def without_regions(model: Net) -> Net:
    """torch's own checkpointing updates BatchNorm's statistics twice."""
    twin = copy.deepcopy(model)
    twin.first.context = twin.second.context = None
    return twin


def must(names: tuple[str, ...], otherwise: CheckpointPolicy) -> Context:
    """A context for checkpoint: these ops must be recomputed, all where none are named."""

    def policy(_context: object, op: object, *_args: object, **_named: object) -> object:
        name = str(op).removeprefix("aten.").split(".")[0]
        return CheckpointPolicy.MUST_RECOMPUTE if name in names or not names else otherwise

    return partial(create_selective_checkpoint_contexts, policy)


EVERYTHING = must((), PREFER)
EXP = must(("exp",), PREFER)
EXP_AMONG_SAVED = must(("exp",), CheckpointPolicy.PREFER_SAVE)


def optimized(model: nn.Module, budget: object = 1.0, policy: object = HONOUR) -> nn.Module:
    found = fxremat.optimize(
        model, budget=budget, policy=policy, solver="greedy", cost="flops", example_inputs=X
    )
    assert isinstance(found, nn.Module)
    return found


def planned(model: nn.Module, budget: object = 1.0, policy: object = HONOUR) -> Plan:
    return compiled_of(optimized(model, budget, policy)).backend.history.graphs[-1].plan


def held(plan: Plan) -> set[str]:
    """The operations whose results forward leaves for backward."""
    storages = [plan.lowering.storage_of[value] for value, _ in residuals(plan)]
    return {storage.maker.name for storage in storages if storage is not None}


def again(plan: Plan) -> set[str]:
    reruns = plan.lowering.reruns_in(plan.schedule)
    return {_name(plan.lowering.operation_of[op]) for op in reruns}


def _name(operation: Operation | None) -> str:
    assert operation is not None
    return operation.name


def of_kind(names: set[str], kind: str) -> set[str]:
    return {name for name in names if re.fullmatch(rf"{kind}(_\d+)?", name)}


def steps(model: nn.Module) -> list[torch.Tensor]:
    """All that three steps leave: gradients, buffers, the random state."""
    torch.manual_seed(5)
    found: list[torch.Tensor] = []
    for _ in range(3):
        model.zero_grad()
        model(X).backward()
        found += [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [*found, *(b.clone() for b in model.buffers()), torch.get_rng_state()]


def test_what_is_marked_is_held_where_regions_are_ignored() -> None:
    plan = planned(Net(EXP), policy=None)
    assert len(of_kind(held(plan), "exp")) == 2
    assert not again(plan)


def test_what_is_marked_is_not_held_at_any_budget() -> None:
    plan = planned(Net(EXP_AMONG_SAVED))
    assert plan.budget_bytes == plan.baseline_peak_bytes, "of a step with nothing recomputed"
    assert again(plan) == {"exp", "exp_1"}, "and no more"
    assert plan.extra_seconds > 0
    lowest = plan.with_schedule(plan.lowest.schedule)
    for each in (plan, lowest):
        assert not of_kind(held(each), "exp")
        assert {"exp", "exp_1"} <= again(each)
        assert part_plan(each.lowering, each.schedule).cost >= plan.solution.lower_bound
    assert len(again(lowest)) > 2


def test_what_reads_it_is_made_again_too_or_runs_once() -> None:
    """Else backward could make that again from a marked value that was held."""
    dropout = {"native_dropout_mask", "native_dropout_1_mask"}
    assert dropout <= again(planned(Net(EXP)))
    saved = planned(Net(EXP_AMONG_SAVED))
    saved = saved.with_schedule(saved.lowest.schedule)
    assert dropout <= held(saved)
    reasons = {o.name: o.mode.reason for o in saved.graph.forward}
    assert {reasons[name] for name in dropout} == {"reads what must be recomputed"}


@pytest.mark.parametrize("context", [EXP, EXP_AMONG_SAVED, EVERYTHING])
def test_no_schedule_holds_what_is_marked(context: Context) -> None:
    """Neither can what reads it in forward run later, nor run again."""
    lowering = planned(Net(context)).lowering
    problem, tangents = lowering.problem, lowering.tangents_op
    marked = {lowering.storage_of[v] for op in lowering.again for v in problem.ops[op].outputs}
    values = {lowering.storage_of.index(storage) for storage in marked}
    order = list(baseline(problem))
    readers = [op for op in order[:tangents] if values.intersection(problem.ops[op].inputs)]
    assert readers
    assert not any(values.intersection(problem.ops[op].inputs) for op in order[tangents:])
    for op in readers:
        assert not problem.ops[op].reruns
        later = [*order[:op], *order[op + 1 : tangents + 1], op, *order[tangents + 1 :]]
        with pytest.raises(ScheduleError):
            simulate(problem, later)


def test_what_a_region_returns_is_its_callers() -> None:
    plan = planned(Net(EVERYTHING))
    assert "add_1" in held(plan)
    assert not of_kind(again(plan), "add")


@pytest.mark.parametrize("budget", [1.0, 0.6])
def test_a_step_has_the_models_bits_and_the_predicted_peak(budget: float) -> None:
    """BatchNorm and dropout are made again, too."""
    model = Net(EVERYTHING)
    twin = without_regions(model)
    ours = optimized(model, budget)
    plan = compiled_of(ours).backend.history.graphs[-1].plan
    remade = again(plan)
    assert {"native_dropout_mask", "native_dropout_1_mask"} <= remade
    assert "_native_batch_norm_legit_functional_1" in remade
    assert all(map(torch.equal, steps(twin), steps(ours)))
    for parameter in model.parameters():
        parameter.grad = None
    assert fxremat.measure_peak(lambda: ours(X).backward()).peak_bytes == plan.peak_bytes
    assert plan.peak_bytes <= plan.budget_bytes
    report = fxremat.explain(ours)
    assert any(row.policy == "recomputed" and row.recomputed_bytes for row in report.rows)
    assert any("recomputed as asked: MUST_RECOMPUTE" in note for note in report.notes)
    assert report.baseline_timeline_bytes == plan.baseline.running_bytes
    values = report.timelines.values
    for order in (report.timelines.baseline, report.timelines.planned):
        spans = [span for span in order.spans if span.begin <= order.boundary <= span.end]
        alive = sum(values[span.value].nbytes for span in spans)
        assert alive == order.nbytes[order.boundary] - order.workspace_bytes[order.boundary]


def test_a_step_of_several_graphs() -> None:
    model = Net(EVERYTHING, breaks=True)
    twin = without_regions(model)
    ours = fxremat.optimize(model, budget=0.9, policy=HONOUR)
    assert all(map(torch.equal, steps(twin), steps(ours)))
    tracker = compiled_of(ours).backend.tracker
    assert tracker is not None
    plan = tracker.kinds[0].plan
    assert plan is not None
    parts = [part for reference in tracker.kinds[0].parts if (part := reference()) is not None]
    for part, chosen in list(zip(parts, plan.plans, strict=True))[:2]:
        lowering = part.front.lowering
        remade = {_name(lowering.operation_of[op]) for op in lowering.reruns_in(chosen.schedule)}
        assert {"exp", "native_dropout_mask"} <= remade
        assert part.front.baseline.cost < part.front.cheapest.cost <= chosen.cost
    assert plan.extra_seconds > 0


def test_what_cant_be_recomputed_is_said() -> None:
    policy = Policy(keep=("aten.exp",), regions="honour")
    with pytest.warns(UserWarning, match=r"2 operations .* exp \(kept as asked: aten\.exp\)"):
        plan = planned(Net(EXP), policy=policy)
    assert len(of_kind(held(plan), "exp")) == 2


def test_kernels_are_not_marked() -> None:
    graph = planned(Net(EXP)).graph
    with pytest.warns(UserWarning, match='regions="honour" has no effect'):
        Classify(HONOUR).run(Annotated(replace(graph, executor="inductor")))
