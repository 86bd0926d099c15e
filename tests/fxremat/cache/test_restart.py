"""A second process, or an optimized model of its own, times and solves nothing again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import fxremat
from fxremat.cache import store
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.history import CompiledGraph
from fxremat.measure import device_ceilings, kept, profile_ops
from fxremat.plan import kept as kept_plans
from fxremat.plan import plan as planning
from tests.numerics.steps import tight_budget

STEPS = 3


def net() -> nn.Module:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Dropout(0.2)) for _ in range(3)]
    return nn.Sequential(*blocks, nn.Linear(24, 1), nn.Flatten(0))


def train(model: nn.Module) -> list[torch.Tensor]:
    """Every gradient of some steps, and the generator's state after them."""
    torch.manual_seed(1)
    found: list[torch.Tensor] = []
    for _ in range(STEPS):
        model.zero_grad()
        model(torch.randn(96, 24)).square().mean().backward()
        found += [parameter.grad.clone() for parameter in model.parameters()]
    return [*found, torch.get_rng_state()]


def optimized(budget: object) -> nn.Module:
    """As in a process that has just begun."""
    torch._dynamo.reset()
    device_ceilings.measured_ceilings.cache_clear()
    return fxremat.optimize(net(), budget=budget)


def graph_of(model: nn.Module) -> CompiledGraph:
    return compiled_of(model).backend.history.graphs[-1]


@pytest.fixture
def budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    found = tight_budget(net(), (torch.randn(96, 24),))
    monkeypatch.setenv("FXREMAT_CACHE", str(tmp_path))
    monkeypatch.setattr(store, "_said", set())
    return found


def refuse(*_arguments: object, **_named: object) -> object:
    raise AssertionError("measured or searched again")


def test_nothing_is_measured_or_searched_twice(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = optimized(budget)
    expected = train(net())
    assert all(map(torch.equal, train(first), expected))
    plan = graph_of(first).plan
    for module, name in (
        (profile_ops, "_memory"),
        (profile_ops, "_times"),
        (device_ceilings, "_measured"),
        (planning, "solve"),
    ):
        monkeypatch.setattr(module, name, refuse)
    again = optimized(budget)
    assert all(map(torch.equal, train(again), expected))
    found = graph_of(again).plan
    assert found.problem == plan.problem
    assert found.schedule == plan.schedule
    assert found.solution.lower_bound == plan.solution.lower_bound
    assert found.solution.status == plan.solution.status
    assert found.extra_seconds > 0
    assert found.solution.solver.endswith(", kept")


def test_ops_without_a_time_are_not_timed_again_but_where_asked(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fxremat.annotate.annotate.MEASURING_LIMIT_S", 1e-9)
    fxremat.optimize(net(), budget=budget, example_inputs=torch.randn(96, 24))
    times = profile_ops._times
    with monkeypatch.context() as patched:
        patched.setattr(profile_ops, "_times", refuse)
        fxremat.optimize(net(), budget=budget, example_inputs=torch.randn(96, 24))
    timed: list[int] = []
    monkeypatch.setattr(
        profile_ops, "_times", lambda nodes, *rest: timed.append(len(nodes)) or times(nodes, *rest)
    )
    inputs = torch.randn(96, 24)
    fxremat.optimize(net(), budget=budget, cost="measured", example_inputs=inputs)
    assert timed[0] > 1


def plan_files(folder: Path) -> list[Path]:
    return list(folder.glob("*/plans/*.json"))


@pytest.mark.parametrize("damage", ["order", "text", "ops"])
def test_a_damaged_plan_is_searched_for_anew(budget: int, tmp_path: Path, damage: str) -> None:
    inputs = torch.randn(96, 24)
    first = fxremat.optimize(net(), budget=budget, solver="greedy", example_inputs=inputs)
    (path,) = plan_files(tmp_path)
    document = json.loads(path.read_text())
    if damage == "order":
        document["ops"] = document["ops"][::-1]
    elif damage == "ops":
        document["ops"] = [*document["ops"][:-1], 10**6]
    path.write_text("[" if damage == "text" else json.dumps(document))
    with pytest.warns(UserWarning, match="damaged|can't be read"):
        again = fxremat.optimize(net(), budget=budget, solver="greedy", example_inputs=inputs)
    assert graph_of(again).plan.schedule == graph_of(first).plan.schedule
    assert json.loads(path.read_text())["ops"] == list(graph_of(first).plan.schedule.ops)


def test_a_plan_that_takes_more_than_the_budget_is_searched_for_anew(
    budget: int, tmp_path: Path
) -> None:
    inputs = torch.randn(96, 24)
    first = graph_of(
        fxremat.optimize(net(), budget=budget, solver="greedy", example_inputs=inputs)
    ).plan
    (path,) = plan_files(tmp_path)
    document = json.loads(path.read_text())
    document["ops"] = list(range(len(first.problem.ops)))
    path.write_text(json.dumps(document))
    again = graph_of(
        fxremat.optimize(net(), budget=budget, solver="greedy", example_inputs=inputs)
    ).plan
    assert again.peak_bytes <= budget < first.baseline_peak_bytes
    assert again.solution.solver == first.solution.solver


def test_other_options_have_other_plans(budget: int, tmp_path: Path) -> None:
    inputs = torch.randn(96, 24)
    for options in ({"seed": 0}, {"seed": 0, "threads": 1}, {"seed": 1}):
        fxremat.optimize(net(), budget=budget, solver="greedy", example_inputs=inputs, **options)
    assert len(plan_files(tmp_path)) == 2


def test_other_times_have_no_bound(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.randn(96, 24)
    fxremat.optimize(net(), budget=budget, example_inputs=inputs)
    monkeypatch.setattr(kept_plans, "_figures", lambda _problem: "others")
    found = graph_of(fxremat.optimize(net(), budget=budget, example_inputs=inputs)).plan
    assert found.solution.lower_bound == found.problem.baseline_cost
    assert found.solution.status == "feasible"


def test_a_profile_comes_back_as_it_was(budget: int) -> None:
    model = fxremat.optimize(net(), budget=budget, example_inputs=torch.randn(96, 24))
    known = compiled_of(model).backend.profiles
    again = profile_ops.OpProfiles()
    kept.recall(known.by_signature, torch.device("cpu"), again)
    assert again.by_signature == known.by_signature
    assert any(any(profile.layouts) for profile in known.by_signature.values())
