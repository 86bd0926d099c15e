"""Steps of many graphs: the bits, the peaks, and what is said, against the same model unplanned."""

from __future__ import annotations

import copy
import functools
import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxremat
from fxremat import torch_hooks
from fxremat.frontend.compiled import compiled_of
from fxremat.step.compose import peak_under
from fxremat.step.tracker import StepTracker


def block() -> nn.Module:
    layers = [nn.Linear(48, 192), nn.GELU(), nn.Dropout(0.1), nn.Linear(192, 48)]
    return nn.Sequential(*layers, nn.LayerNorm(48))


class Broken(nn.Module):
    """Two halves, and code between them that Dynamo can't trace."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(), block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        torch._dynamo.graph_break()
        return self.second(x).square().mean()


X = torch.randn(128, 48)
LABELS = torch.arange(128)


def tracker_of(optimized: Any) -> StepTracker:
    found = compiled_of(optimized).backend.tracker
    assert found is not None
    return found


def state_of(module: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return [loss.detach(), *gradients, *module.buffers(), torch.get_rng_state()]


def train(
    module: nn.Module, step: Callable[[], torch.Tensor], steps: int = 4
) -> list[list[torch.Tensor]]:
    """What a few steps leave, each with an optimizer's step."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    seen: list[list[torch.Tensor]] = []
    for seed in range(steps):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        loss = step()
        seen.append([t.clone() for t in state_of(module, loss)])
        del loss
        optimizer.step()
    return seen


def peak_of(module: nn.Module, step: Callable[[], Any]) -> int:
    for parameter in module.parameters():
        parameter.grad = None
    return fxremat.measure_peak(step).peak_bytes


def backward_of(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    loss = function(*inputs)
    loss.backward()
    return loss


def budget_between(tracker: StepTracker, share: float) -> int:
    """A budget between what a step needs at least, as far as is known, and the most."""
    kind = tracker.kinds[0]
    parts = [part() for part in kind.parts]
    least = peak_under(kind.moments, [p.front.least for p in parts if p is not None])
    most = peak_under(kind.moments, [p.front.baseline for p in parts if p is not None])
    return int(least + share * (most - least))


def one_call(function: Any) -> torch.Tensor:
    return backward_of(function, X)


@functools.cache
def tight(run: Callable[[Any], torch.Tensor] = one_call) -> int:
    """A budget for such a step of the broken model, from what a first one has shown."""
    optimized = fxremat.optimize(fresh(), budget=1.0)
    run(optimized)
    tracker = tracker_of(optimized)
    tracker._finish()
    return budget_between(tracker, 0.3)


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return Broken()


def trained_alike(
    step: Callable[[Any], torch.Tensor], budget: int
) -> tuple[nn.Module, nn.Module, Any]:
    """The model, another one, and what is optimized of that, after steps of the same bits."""
    reference, module = fresh(), fresh()
    optimized = fxremat.optimize(module, budget=budget)
    expected = train(reference, lambda: step(reference))
    seen = train(module, lambda: step(optimized))
    for before, after in zip(expected, seen, strict=True):
        assert all(map(torch.equal, before, after))
    return reference, module, optimized


def test_a_broken_model_has_its_bits_and_its_budget() -> None:
    budget = tight()
    reference, module, optimized = trained_alike(one_call, budget)
    assert peak_of(module, lambda: one_call(optimized)) <= budget
    assert peak_of(reference, lambda: one_call(reference)) > budget
    plan = tracker_of(optimized).kinds[0].plan
    assert plan is not None
    assert plan.peak_bytes <= budget
    assert plan.lower_bound <= plan.cost + 1e-12


def test_the_first_step_is_within_the_least_plan() -> None:
    module = fresh()
    optimized = fxremat.optimize(module, budget=1.0)
    backward_of(optimized, X)
    tracker = tracker_of(optimized)
    tracker._finish()
    least = budget_between(tracker, 0.0)
    again = fxremat.optimize(copy.deepcopy(module), budget=least)
    for _ in range(3):  # the budget that is the first step's own peak can be met
        backward_of(again, X)


def test_through_torch_compile() -> None:
    budget = tight()
    reference, module = fresh(), fresh()
    compiled = torch.compile(module, backend="fxremat", options={"budget": budget})
    expected = train(reference, lambda: one_call(reference))
    seen = train(module, lambda: one_call(compiled))
    for before, after in zip(expected, seen, strict=True):
        assert all(map(torch.equal, before, after))
    assert peak_of(module, lambda: one_call(compiled)) <= budget


def test_two_forwards_before_their_backwards_are_one_step() -> None:
    def step(function: Any) -> torch.Tensor:
        loss = function(X) + function(2 * X)
        loss.backward()
        return loss

    budget = tight(step)
    _, module, optimized = trained_alike(step, budget)
    assert len(tracker_of(optimized).kinds[0].keys) == 4
    assert peak_of(module, lambda: step(optimized)) <= budget


def test_a_second_size_is_recorded_and_planned_too() -> None:
    reference, module = fresh(), fresh()
    optimized = fxremat.optimize(module, budget=0.8)
    sizes = [X, X, X[:100], X[:100], X, X[:100]]

    def steps(function: Any) -> Callable[[], torch.Tensor]:
        batches = iter(sizes)
        return lambda: backward_of(function, next(batches))

    expected = train(reference, steps(reference), len(sizes))
    seen = train(module, steps(optimized), len(sizes))
    for before, after in zip(expected, seen, strict=True):
        assert all(map(torch.equal, before, after))
    plans = [kind.plan for kind in tracker_of(optimized).kinds]
    assert len(plans) == 2
    assert len({plan.budget_bytes for plan in plans if plan is not None}) == 1, (
        "a fraction is one of the largest step"
    )


def test_a_graph_that_nothing_comes_of_does_not_stop_the_planning() -> None:
    class Unused(Broken):
        def forward(self, x: torch.Tensor) -> Any:
            loss = super().forward(x)
            return loss, self.first(x).sum()

    torch.manual_seed(0)
    module = Unused()
    optimized = fxremat.optimize(module, budget=0.9)
    kept: Any = None
    for _ in range(4):
        kept = optimized(X)
        kept[0].backward()
    assert tracker_of(optimized).kinds[0].plan is not None


def test_an_evaluation_with_gradients_leaves_the_plan_in_use() -> None:
    module = fresh()
    optimized = fxremat.optimize(module, budget=1.0)
    for _ in range(3):
        backward_of(optimized, X)
    plan = tracker_of(optimized).kinds[0].plan
    optimized.eval()
    for _ in range(2):
        optimized(X).item()
    optimized.train()
    loss = optimized(X)
    step = tracker_of(optimized)._step
    assert plan is not None
    assert step is not None
    assert [call.plan for call in step.calls] == list(plan.plans)
    loss.backward()


class Scored(Broken):
    """Returns what its loss is made of, which backward needs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, 1024)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.first(x)
        torch._dynamo.graph_break()
        scores = self.head(self.second(x))
        return F.cross_entropy(scores, LABELS), scores


@pytest.mark.parametrize("held", [False, True])
def test_outputs_that_are_residuals_count_once_whoever_holds_them(held: bool) -> None:
    torch.manual_seed(0)
    module = Scored()
    optimized = fxremat.optimize(module, budget=1.0)

    def step() -> None:
        loss, scores = optimized(X)
        if not held:
            del scores
        loss.backward()

    for _ in range(3):
        step()
    plan = tracker_of(optimized).kinds[0].plan
    assert plan is not None
    measured = peak_of(module, step)
    assert measured <= plan.peak_bytes <= measured + 64
    scores_bytes = 4 * len(X) * 1024
    assert plan.peak_bytes > 3 * scores_bytes


def test_a_budget_that_cannot_be_met_says_what_the_step_holds() -> None:
    module = fresh()
    optimized = fxremat.optimize(module, budget="200KB")
    for _ in range(2):  # the first one compiles, which may hold more
        backward_of(optimized, X)
    for _ in range(3):  # Each time, and not each other time.
        with pytest.raises(fxremat.BudgetInfeasible, match="outside of the graphs") as caught:
            backward_of(optimized, X)
    again = fxremat.optimize(fresh(), budget=caught.value.floor_bytes)
    for _ in range(4):
        backward_of(again, X)
    assert tracker_of(again).kinds[0].plan is not None


def test_a_smaller_batch_may_follow_one_whose_budget_cannot_be_met() -> None:
    budget = tight()
    optimized = fxremat.optimize(fresh(), budget=budget)
    large = torch.cat([X] * 4)
    for _ in range(2):
        backward_of(optimized, large)
    with pytest.raises(fxremat.BudgetInfeasible):
        backward_of(optimized, large)
    for _ in range(3):
        backward_of(optimized, X)
    (kind,) = tracker_of(optimized).kinds
    assert kind.plan is not None


def test_steps_that_are_never_planned_are_heard() -> None:
    optimized = fxremat.optimize(fresh(), budget=1.0)
    with warnings.catch_warnings(record=True) as caught, torch.profiler.profile():
        warnings.simplefilter("always")
        for _ in range(7):
            backward_of(optimized, X)
    said = [w for w in caught if "ran without a plan for all of them" in str(w.message)]
    assert len(said) == 1


def test_fullgraph_refuses_a_broken_model() -> None:
    optimized = fxremat.optimize(fresh(), budget=1.0, fullgraph=True)
    with pytest.raises(fxremat.GraphBreakError):
        optimized(X)


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    optimized = fxremat.optimize(fresh(), budget=1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            backward_of(optimized, X)
    assert not [w for w in caught if "fxremat" in w.filename]
    said = [r.getMessage() for r in caplog.records if "several graphs" in r.getMessage()]
    assert len(said) == 1


def test_a_profiler_around_the_first_steps_only_delays_the_plan() -> None:
    optimized = fxremat.optimize(fresh(), budget=1.0)
    with torch.profiler.profile():
        for _ in range(2):
            backward_of(optimized, X)
    assert not tracker_of(optimized).kinds
    for _ in range(2):
        backward_of(optimized, X)
    assert tracker_of(optimized).kinds[0].plan is not None


def test_a_step_that_is_left_halfway_leaves_the_profiler_alone() -> None:
    optimized = fxremat.optimize(fresh(), budget=1.0)
    loss = optimized(X)
    assert torch_hooks.profiler_is_active()
    del loss, optimized
    gc.collect()
    again = fxremat.optimize(fresh(), budget=1.0)
    for _ in range(3):
        backward_of(again, X)
    assert tracker_of(again).kinds[0].plan is not None
    assert not torch_hooks.profiler_is_active()


class Repeated(Broken):
    """Its first half runs as often as it is told, which no call says beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Sequential(block(), nn.Tanh())

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        for _ in range(int(times)):
            x = self.first(x)
            torch._dynamo.graph_break()
        return self.second(x).square().mean()


def test_a_step_that_may_get_longer_begins_by_the_plans_of_the_longest() -> None:
    long, short = torch.tensor(4), torch.tensor(2)
    module = Repeated()
    peak = peak_of(module, lambda: module(X, long).backward())
    budget = int(0.75 * peak)
    optimized = fxremat.optimize(module, budget=budget)
    for times in (long, short) * 6:
        backward_of(optimized, X, times)
    kinds = tracker_of(optimized).kinds
    assert len({len(kind.keys) for kind in kinds}) == 2
    assert all(kind.plan and kind.checked for kind in kinds)
    for times in (long, short, long):
        assert peak_of(module, lambda times=times: optimized(X, times).backward()) <= budget


class Changed(nn.Module):
    """A tensor that one graph returns, and another one changes in place.

    Something is made of it before: in the first graph, in one between them, or in the last.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.inner, self.head = nn.Linear(48, 48), nn.Linear(48, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        made = self.head(long_made_of(y)) if self.where == "first" else y
        torch._dynamo.graph_break()
        if self.where != "first":
            made = self.head(long_made_of(y))
        if self.where == "between":
            torch._dynamo.graph_break()
        y += 2
        return (made * y).mean()


def long_made_of(y: torch.Tensor) -> torch.Tensor:
    made = (y * 3).square()
    for _ in range(8):
        made = made.sin()
    return made


@pytest.mark.parametrize("where", ["first", "between", "last"])
def test_what_another_graph_changes_is_not_kept_to_recompute_from(where: str) -> None:
    """Autograd refuses a backward whose saved tensors were changed: eager saves others."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return Changed(where)

    def step(function: Any) -> torch.Tensor:
        return backward_of(function, X)

    reference, module = make(), make()
    optimized = fxremat.optimize(module, budget=0.5)
    expected = train(reference, lambda: step(reference))
    seen = train(module, lambda: step(optimized))
    for before, after in zip(expected, seen, strict=True):
        assert all(map(torch.equal, before, after))


def test_steps_that_never_come_again_are_not_waited_for() -> None:
    """A graph of the first step is compiled anew in the second: its kind stays unchecked."""

    class Counting(Broken):
        seen = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = min(self.seen + 1, 2)
            return super().forward(x) * self.seen

    module = Counting()
    optimized = fxremat.optimize(module, budget=0.9)
    for _ in range(8):
        backward_of(optimized, X)
    tracker = tracker_of(optimized)
    tracker.settle()
    assert tracker.is_settled
    assert all(kind.checked for kind in tracker.kinds)
