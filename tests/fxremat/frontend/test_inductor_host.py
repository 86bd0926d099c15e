"""Budgets under Inductor itself: what it compiles keeps them, or it is said; and its bits."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._functorch import config as functorch
from torch._inductor import config

import fxremat
from fxremat.frontend.inductor_host import Partitioner
from fxremat.frontend.inductor_pairs import Search

BATCH = torch.randn(128, 16)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(16, 64), nn.GELU(), nn.Dropout(0.2), nn.Linear(64, 64), nn.GELU()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(64, 16))


def step(model: Any) -> None:
    model(BATCH).square().mean().backward()


def left_by(model: nn.Module, call: Any) -> tuple[list[torch.Tensor], int]:
    """What three steps leave, and the peak of a fourth."""
    torch.manual_seed(1)
    left: list[torch.Tensor] = []
    for _ in range(3):
        model.zero_grad()
        step(call)
        left += [each.grad.clone() for each in model.parameters() if each.grad is not None]
    left.append(torch.get_rng_state())
    model.zero_grad()
    return left, fxremat.measure_peak(lambda: step(call)).peak_bytes


def partitioner(budget: Any, **options: Any) -> Partitioner:
    return fxremat.inductor_options(budget, **options)["custom_partitioner_fn"]


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    """No graph comes from a cache."""
    torch._dynamo.reset()
    with config.patch(fx_graph_cache=False), functorch.patch(enable_autograd_cache=False):
        yield
    torch._dynamo.reset()


def test_a_budget_is_kept_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    expected, plain = left_by(model, torch.compile(model))
    model = network()
    options = fxremat.inductor_options(int(0.9 * plain))
    found, peak = left_by(model, torch.compile(model, options=options))
    assert all(map(torch.equal, found, expected))
    assert peak <= 0.9 * plain
    (chosen,) = options["custom_partitioner_fn"].chosen
    assert peak <= chosen.peak_bytes <= 0.9 * plain

    # Without options, for who compiles elsewhere; and what can't be kept is said.
    torch._dynamo.reset()
    model = network()
    said = r'budget of 4,096 B is not kept.*backend="fxremat"'
    with fxremat.installed("4KiB"):
        other: Any = config.custom_partitioner_fn
        with pytest.warns(UserWarning, match=said):
            found, peak = left_by(model, torch.compile(model))
    assert config.custom_partitioner_fn is None
    assert all(map(torch.equal, found, expected))
    assert peak <= other.chosen[0].peak_bytes
    assert other.uuid() is None

    # So is what can't be planned; it runs as under torch.compile.
    def fail(_search: Search) -> None:
        raise fxremat.UnsupportedGraphError("a number of the graph")

    monkeypatch.setattr(Search, "within_budget", fail)
    model = network()
    options = fxremat.inductor_options(int(0.8 * plain))
    with pytest.warns(UserWarning, match="without a plan.*: a number of the graph"):
        found, peak = left_by(model, torch.compile(model, options=options))
    assert all(map(torch.equal, found, expected))
    assert peak == plain
    assert options["custom_partitioner_fn"].uuid() is None


def test_inductors_caches_know_what_was_asked() -> None:
    one = partitioner(0.5)
    assert one.uuid() == partitioner(0.5).uuid()
    others = [partitioner(0.6), partitioner("1MiB"), partitioner(0.5, solver="greedy")]
    assert len({str(each.uuid()) for each in [one, *others]}) == 4
    assert fxremat.__version__ in str(one.uuid())
    assert copy.deepcopy(one) is one


def test_options_are_checked() -> None:
    with pytest.raises(fxremat.BudgetError):
        fxremat.inductor_options("6 bananas")
    with pytest.raises(fxremat.OptionError, match="solver"):
        fxremat.inductor_options(0.5, solver="none")
