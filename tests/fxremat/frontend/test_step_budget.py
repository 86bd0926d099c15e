"""Several compiled functions under one budget: bits, peaks, one trace for equal blocks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import fxremat
from fxremat.frontend.compiled import compiled_of

X = torch.randn(64, 32)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)
        self.norm, self.dropout = nn.LayerNorm(32), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = nn.functional.gelu(self.up(self.norm(x)))
        return x + self.down(self.dropout(h))


class Net(nn.Module):
    """Blocks in a loop that runs as it is, with numbers read on the way."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x.square().mean()


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def optimized_blocks(budget: Any) -> Net:
    model = net()
    for index, block in enumerate(model.blocks):
        model.blocks[index] = fxremat.optimize(block, budget=budget)
    return model


def compiled_blocks(budget: Any) -> Net:
    model = net()
    for block in model.blocks:
        block.compile(backend="fxremat", options={"budget": budget})
    return model


def train(model: nn.Module, step: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """What four steps leave: losses, gradients, parameters, the random state."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[torch.Tensor] = []
    for seed in range(4):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        loss = step()
        loss.backward()
        seen += [loss.detach().clone(), torch.get_rng_state()]
        seen += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        del loss
        optimizer.step()
    return [*seen, *model.parameters()]


def peak_of(model: nn.Module) -> int:
    for parameter in model.parameters():
        parameter.grad = None
    return fxremat.measure_peak(lambda: model(X).backward()).peak_bytes


def reference() -> tuple[list[torch.Tensor], int]:
    model = net()
    seen = train(model, lambda: model(X))
    return seen, peak_of(model)


@pytest.mark.parametrize("make", [optimized_blocks, compiled_blocks])
def test_blocks_share_a_budget(make: Callable[[Any], Net]) -> None:
    torch._dynamo.reset()
    expected, most = reference()
    budget = fxremat.StepBudget(int(0.7 * most))
    model = make(budget)
    counters.clear()
    seen = train(model, lambda: model(X))
    assert all(map(torch.equal, seen, expected))
    # The first block is another graph: its input needs no gradient.
    assert counters["stats"]["unique_graphs"] == 2, "equal blocks are traced once"
    assert peak_of(model) <= int(0.7 * most)
    report = fxremat.explain_step(budget)
    assert len(report.calls) == 4
    assert report.extra_seconds > 0
    assert len({call.saved_bytes for call in report.calls}) > 1, "each call has its own plan"


def test_a_model_and_its_loss_share_a_budget() -> None:
    def loss_of(x: torch.Tensor) -> torch.Tensor:
        return (x.sin().exp().cos() ** 2).mean()

    def steps(model: Any, loss: Any) -> list[torch.Tensor]:
        return train(model, lambda: loss(model(X)))

    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block())
    expected = steps(copy.deepcopy(model), loss_of)
    budget = fxremat.StepBudget(1.0)
    optimized = fxremat.optimize(model, budget=budget)
    seen = steps(optimized, fxremat.optimize(loss_of, budget=budget))
    assert all(map(torch.equal, seen, expected))
    report = fxremat.explain_step(budget)
    assert [report.calls[k].extra_seconds for k in (0, 1)] == [0.0, 0.0]
    assert report.planned_peak_bytes <= report.budget_bytes == report.baseline_peak_bytes


def test_regions_are_the_repeated_blocks() -> None:
    expected, most = reference()
    module = net()
    optimized = fxremat.optimize(module, budget=int(0.7 * most), regions="blocks")
    seen = train(module, lambda: optimized(X))
    assert all(map(torch.equal, seen, expected))
    assert peak_of(optimized) <= int(0.7 * most)
    assert len(fxremat.explain_step(optimized).calls) >= 4
    assert not any("forward" in vars(block) for block in module.blocks), "the model is as it was"
    # That of the first block, whose input needs no gradient, and one for the three others.
    calls = [graph.calls.count for graph in compiled_of(optimized).backend.history.graphs]
    assert sorted(calls) == [5, 3 * 5]


def test_regions_need_blocks() -> None:
    with pytest.raises(fxremat.OptionError, match="no blocks"):
        fxremat.optimize(nn.Linear(4, 4), budget=1.0, regions="blocks")
    with pytest.raises(fxremat.OptionError, match="no blocks"):
        fxremat.optimize(torch.sin, budget=1.0, regions="blocks")
    with pytest.raises(fxremat.OptionError, match="regions is 'layers'"):
        fxremat.optimize(net(), budget=1.0, regions="layers")
    with pytest.raises(fxremat.OptionError, match="fullgraph"):
        fxremat.optimize(net(), budget=1.0, regions="blocks", fullgraph=True)


def test_a_shared_budget_has_the_same_options() -> None:
    budget = fxremat.StepBudget("1GiB")
    fxremat.optimize(Block(), budget=budget)
    with pytest.raises(fxremat.OptionError, match="preset='fast' and 'thorough'"):
        fxremat.optimize(Block(), budget=budget, preset="thorough")
    with pytest.raises(fxremat.BudgetError):
        fxremat.StepBudget("many")


def test_copies_share_it_and_pickles_have_their_own() -> None:
    budget = fxremat.StepBudget("1GiB")
    model = nn.Sequential(*(fxremat.optimize(Block(), budget=budget) for _ in range(2)))
    copied = copy.deepcopy(model)
    assert {id(compiled_of(block).backend) for block in (*model, *copied)} == {
        id(compiled_of(model[0]).backend)
    }
    loaded = pickle.loads(pickle.dumps(model))
    first, second = (compiled_of(block).backend for block in loaded)
    assert first is second is not compiled_of(model[0]).backend
    assert first.options.budget == budget.budget


def test_a_budget_that_nothing_fits_is_an_error() -> None:
    model = optimized_blocks(fxremat.StepBudget("20KiB"))
    with pytest.raises(fxremat.BudgetInfeasible, match="smallest that was reached"):
        train(model, lambda: model(X))


def with_optimizers_in_backward(model: nn.Module) -> nn.Module:
    """Each parameter is changed, and its gradient freed, as soon as that is there."""

    def change(parameter: torch.Tensor) -> None:
        with torch.no_grad():
            parameter -= 0.1 * parameter.grad
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(change)
    return model


def test_gradients_that_are_freed_early_are_known() -> None:
    def trained(model: nn.Module, function: Any) -> list[torch.Tensor]:
        for seed in range(3):
            torch.manual_seed(seed)
            function(X).backward()
        return [parameter.detach().clone() for parameter in model.parameters()]

    plain, model, whole = (with_optimizers_in_backward(Net(8)) for _ in range(3))
    model.load_state_dict(plain.state_dict())
    gradients = sum(parameter.nbytes for parameter in plain.parameters())
    budget = gradients + 48 * 2**10
    optimized = fxremat.optimize(model, budget=budget, regions="blocks")
    assert all(map(torch.equal, trained(model, optimized), trained(plain, plain)))
    assert peak_of(optimized) <= budget
    with pytest.raises(fxremat.BudgetInfeasible) as caught:
        fxremat.optimize(whole, budget=budget)(X)
    assert "regions" in caught.value.__notes__[0]
