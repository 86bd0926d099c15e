"""Loops in traced functions: one operation, as exact as alone, kept within a step's budget."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import fxremat
from fxremat.frontend.loop_slots import Loop
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace

QUICK: Any = {"solver": "greedy", "cost": "flops"}


class Sequences(nn.Module):
    """xs, outputs that are the state, dropout, and a tensor that the model computed before."""

    def __init__(self, loop: Callable[..., Any]) -> None:
        super().__init__()
        self.loop, self.embed, self.cell = loop, nn.Linear(6, 8), nn.GRUCell(8, 8)
        self.gate, self.bias = nn.Linear(6, 8), nn.Parameter(torch.rand(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, first = torch.sigmoid(self.gate(x[0])), {"h": self.bias * x.new_ones(4, 8)}

        def step(state: Any, x: torch.Tensor) -> Any:
            h = F.dropout(self.cell(x, state["h"]) * gate, 0.1) + self.bias
            return {"h": h}, (h, h.detach() > 0)

        state, (ys, signs) = self.loop(step, first, xs=self.embed(x), outputs=True)
        return (ys * signs).sum() + state["h"].square().sum()


class Passing(nn.Module):
    """A state of which a part is passed on, another is an integer, and the step's number."""

    def __init__(self, loop: Callable[..., Any]) -> None:
        super().__init__()
        self.loop, self.weight = loop, nn.Parameter(torch.rand(6, 6) / 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def step(state: Any, i: int) -> Any:
            y, shift, count = state
            return torch.tanh(y @ self.weight + 0.1 * i) + shift, shift, count + 1

        first = (x[0], x[1] * self.weight[0], torch.tensor(0))
        y, shift, count = self.loop(step, first, steps=7)
        return (y * count).sum() + shift.sum()


def same(model: type[nn.Module], slots: int, how: str) -> None:
    torch.manual_seed(0)
    reference = model(plain)
    own = model(lambda *args, **options: fxremat.loop(*args, slots=slots, **options))
    own.load_state_dict(copy.deepcopy(reference.state_dict()))
    x = torch.rand(5, 4, 6)
    call: Any = fxremat.optimize(own, budget="1MiB", fullgraph=True, **QUICK)
    if how == "compile":
        call = torch.compile(own, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        expected = trace(lambda: reference(x), [*reference.parameters()])
        assert_same(expected, trace(lambda: call(x), [*own.parameters()]))
    with torch.no_grad():
        expected_loss, found = (trace_free(lambda m=m: m(x)) for m in (reference, call))
    assert torch.equal(expected_loss, found)


def trace_free(run: Callable[[], torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(3)
    return run()


@pytest.mark.parametrize(
    ("model", "slots", "how"),
    [(Sequences, 3, "optimize"), (Sequences, 1, "compile"), (Passing, 2, "optimize")],
)
def test_bits(model: type[nn.Module], slots: int, how: str) -> None:
    same(model, slots, how)


class Around(nn.Module):
    """A loop between layers."""

    def __init__(self, slots: int = 4, steps: int = 16) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(16, 16), nn.Linear(16, 16)
        self.cell, self.slots, self.steps = Cell(dropout=0.2), slots, steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = fxremat.loop(self.cell, F.gelu(self.before(x)), steps=self.steps, slots=self.slots)
        return self.after(F.gelu(y)).square().sum()


def test_what_it_keeps_is_chosen_within_the_budget() -> None:
    torch.manual_seed(0)
    x, model = torch.rand(32, 16), Around()
    kept: list[tuple[int, int]] = []
    bits: list[list[torch.Tensor]] = []
    for budget in ("1MiB", "130KiB"):
        call: Any = fxremat.optimize(copy.deepcopy(model), budget=budget, fullgraph=True, **QUICK)

        def step(call: Any = call) -> None:
            call.zero_grad()
            torch.manual_seed(1)
            call(x).backward()

        step()
        bits.append([p.grad for p in call.parameters()])
        call.zero_grad()
        taken = fxremat.measure_peak(step).peak_bytes
        report = fxremat.explain(call)
        assert taken == report.planned_peak_bytes <= report.budget_bytes
        (note,) = (note for note in report.notes if note.startswith("A loop of 16 steps keeps"))
        kept.append((int(note.split()[6]), int(note.split()[-5])))
    (most, fewest), (less, more) = kept
    assert most > less
    assert fewest == 32 < more
    assert all(map(torch.equal, *bits))


@pytest.mark.parametrize(("steps", "slots", "length"), [(1000, 20, 1), (7, 7, 1), (1, 1, 1)])
def test_choices_begin_with_the_fewest_evaluations(steps: int, slots: int, length: int) -> None:
    loop = Loop(None, None, steps, slots, length)  # type: ignore[arg-type]
    found = [loop.evaluations(choice) for choice in loop.choices()]
    assert found == sorted(found)
    assert found[0] == 2 * steps
    assert found[-1] <= max(8 * steps, loop.evaluations((slots, length)))
    assert (slots, length) in loop.choices()


def _branches(model: Around, y: torch.Tensor, i: int) -> torch.Tensor:
    return model.cell(y, i) * (2 if i == 2 else 1)


def _within(model: Around, y: torch.Tensor, i: int) -> torch.Tensor:
    return fxremat.loop(model.cell, y, steps=3, slots=1) * (i + 1)


def _checkpointed(model: Around, y: torch.Tensor, i: int) -> torch.Tensor:
    return checkpoint(model.cell, y, i, use_reentrant=False)


class Stepping(Around):
    """The loop of a step that is given."""

    def __init__(self, step: Callable[..., Any]) -> None:
        super().__init__(slots=2, steps=5)
        self.step = step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = F.gelu(self.before(x))
        y = fxremat.loop(
            lambda y, i: self.step(self, y, i), first, steps=self.steps, slots=self.slots
        )
        return self.after(y).square().sum()


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
@pytest.mark.parametrize(
    ("step", "is_one"), [(_branches, False), (_within, True), (_checkpointed, True)]
)
def test_steps_that_are_no_plain_graph(
    step: Callable[..., Any], is_one: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that branch by the step's number run between two graphs, as they are."""
    torch.manual_seed(0)
    reference, x = Stepping(step), torch.rand(3, 16)
    call: Any = fxremat.optimize(copy.deepcopy(reference), budget="1MiB", **QUICK)
    with caplog.at_level(logging.WARNING, logger="fxremat"):
        for _ in range(3):
            expected = trace(lambda: reference(x), [*reference.parameters()])
            assert_same(expected, trace(lambda: call(x), [*call.parameters()]))
    assert is_one != ("several graphs" in caplog.text)


def test_a_tensor_that_was_computed_from_another_one_of_the_step() -> None:
    """The engine would count the way between them at each step."""
    weight = torch.rand(4, 4, requires_grad=True)
    more = weight + 1
    with pytest.raises(fxremat.LoopError, match="part of the state"):
        fxremat.loop(lambda y, _: y @ weight + more, torch.rand(4, 4), steps=5, slots=2)
    y, _ = fxremat.loop(
        lambda state, _: (state[0] @ weight + state[1], state[1]),
        (torch.rand(4, 4), more),
        steps=5,
        slots=2,
    )
    assert y.requires_grad
