"""What a user wants kept is kept: run once, held for backward, said in the report."""

from __future__ import annotations

import copy
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
from fxremat.plan.plan import Plan

aten = torch.ops.aten
X = torch.randn(256, 16)


class Net(nn.Module):
    """`marks` says that it calls `fxremat.keep`, `regions` that its blocks are checkpointed."""

    def __init__(self, *, marks: bool = False, regions: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.drop = nn.Dropout(0.2)
        self.marks, self.regions = marks, regions

    def block(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.drop(F.gelu(block(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, block in enumerate(self.blocks):
            if self.regions:
                context = partial(create_selective_checkpoint_contexts, saves_products)
                x = checkpoint(self.block, block, x, use_reentrant=False, context_fn=context)
            else:
                x = self.block(block, x)
            if self.marks and number == 1:
                x = fxremat.keep(x.view(16, 16, 16)).view(256, 16)
        return x.square().mean()


def saves_products(_context: object, op: object, *_args: object, **_kwargs: object) -> object:
    product = op is aten.addmm.default
    return CheckpointPolicy.MUST_SAVE if product else CheckpointPolicy.PREFER_RECOMPUTE


def planned(model: nn.Module, budget: object = 0.75, policy: object = None) -> Plan:
    optimized = fxremat.optimize(
        model, budget=budget, policy=policy, solver="greedy", cost="flops", example_inputs=X
    )
    return compiled_of(optimized).backend.history.graphs[-1].plan


def again(plan: Plan) -> set[str]:
    """The names of the operations that run more than once."""
    ops = plan.schedule.ops
    return {plan.problem.ops[op].name for op in ops if ops.count(op) > 1}


def lowest(model: nn.Module, policy: object = None) -> Plan:
    """The plan of the smallest budget, which makes as much again as it can."""
    plan = planned(model, 1.0, policy)
    return plan.with_schedule(plan.lowest.schedule)


def test_a_plan_makes_all_kinds_again_where_nothing_is_asked() -> None:
    names = again(lowest(Net()))
    assert any(name.startswith("gelu") for name in names)
    assert any(name.startswith("addmm") for name in names)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ("aten.gelu", "gelu"),
        ("gelu", "gelu"),
        (["blocks.*"], "addmm"),
        (Policy(keep=("blocks",)), "addmm"),
        (Policy(keep=("addmm", "addmm_1", "addmm_[23]")), "addmm"),
    ],
)
def test_patterns_of_ops_modules_and_names(policy: object, kept: str) -> None:
    plan = lowest(Net(), policy)
    assert again(plan), "something else is made again"
    assert not any(name.split("_")[0] == kept for name in again(plan))
    notes = fxremat.explain(
        fxremat.optimize(Net(), budget=1.0, policy=policy, cost="flops", example_inputs=X)
    )
    assert any("kept as asked" in note for note in notes.notes)
    assert any(row.policy == "kept" for row in notes.rows)
    assert "kept: " in str(notes)


def test_a_marked_value_is_kept() -> None:
    plain, marked = lowest(Net()), lowest(Net(marks=True))
    values = [op for op in marked.graph.operations if "fxremat.keep" in op.mode.reason]
    assert len(values) == 1
    assert values[0].name not in again(marked)
    assert values[0].name in again(plain)


def test_regions_of_torchs_are_honoured_or_not() -> None:
    ignored = lowest(Net(regions=True))
    honoured = lowest(Net(regions=True), Policy(regions="honour"))
    assert any(name.startswith("addmm") for name in again(ignored))
    assert not any(name.startswith("addmm") for name in again(honoured))
    assert again(honoured)


def test_steps_under_a_policy_have_the_models_bits() -> None:
    model = Net(marks=True)
    twin = copy.deepcopy(model)
    floor = planned(model, 1.0, "gelu").lowest.peak_bytes
    optimized = fxremat.optimize(model, budget=floor, policy="gelu", solver="greedy")
    found: list[list[torch.Tensor]] = []
    for each in (twin, optimized):
        torch.manual_seed(5)
        results: list[torch.Tensor] = []
        for _ in range(3):
            each.zero_grad()
            each(X).backward()
            results += [parameter.grad.clone() for parameter in each.parameters()]
        found.append([*results, torch.get_rng_state()])
    assert all(map(torch.equal, *found))
    plan = compiled_of(optimized).backend.history.graphs[-1].plan
    assert again(plan)
    for parameter in model.parameters():
        parameter.grad = None
    peak = fxremat.measure_peak(lambda: optimized(X).backward())
    assert peak.peak_bytes == plan.peak_bytes <= floor


def test_without_a_plan_a_mark_is_nothing() -> None:
    assert fxremat.keep(X) is X


def test_a_pattern_that_nothing_has_is_said() -> None:
    with pytest.warns(UserWarning, match=r"no operation of the model is called 'attention\.\*'"):
        planned(Net(), 1.0, ["attention.*", "gelu"])


def test_a_budget_that_a_policy_leaves_no_room_for() -> None:
    floor = planned(Net(), 1.0).lowest.peak_bytes
    with pytest.raises(fxremat.BudgetInfeasible, match="kept as the policy asks"):
        planned(Net(), floor, "*")


@pytest.mark.parametrize("policy", [3, [3], "", [""], {"gelu": True}])
def test_bad_policies(policy: object) -> None:
    with pytest.raises(fxremat.OptionError):
        fxremat.optimize(Net(), budget=0.5, policy=policy)  # type: ignore[arg-type]
    with pytest.raises(fxremat.OptionError):
        Policy(regions="some")
