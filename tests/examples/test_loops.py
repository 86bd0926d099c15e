"""The examples of loops, small: results and gradients are those of their plain loops."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

import fxremat
from examples import (
    loop_adaptive_steps,
    loop_bptt,
    loop_data_assimilation,
    loop_neural_ode,
    loop_selective_scan,
)


def test_neural_ode() -> None:
    torch.manual_seed(0)
    slope = loop_neural_ode.Slope()
    y = torch.randn(4, loop_neural_ode.WIDTH)
    step = loop_neural_ode.rk4(slope, 12)
    exact = loop_neural_ode.gradients(slope, loop_neural_ode.plain(step, y, 12))
    ours = loop_neural_ode.gradients(slope, fxremat.loop(step, y, steps=12, slots=3))
    assert loop_neural_ode.difference(exact, ours) == 0.0
    half = tuple(g / 2 for g in exact)
    assert loop_neural_ode.difference(exact, half) == 0.5


def test_data_assimilation(tmp_path: Path) -> None:
    steps = 40
    with torch.no_grad():
        seen = loop_data_assimilation.observer(steps)(loop_data_assimilation.truth())
    plain, ours = (
        loop_data_assimilation.assimilate(observer, seen, 3)
        for observer in (
            loop_data_assimilation.plain_observer(steps),
            loop_data_assimilation.observer(steps, slots=3),
        )
    )
    assert all(map(torch.equal, plain, ours))
    truth = loop_data_assimilation.truth()
    assert (ours[-1] - truth).norm() < 0.9 * truth.norm()
    loop_data_assimilation.plot(ours, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_bptt() -> None:
    found = []
    for run, options in ((loop_bptt.plain, {}), (loop_bptt.looped, {"budget": 0.3})):
        torch.manual_seed(0)
        model = loop_bptt.Memory(30)
        losses = [*itertools.islice(loop_bptt.train(model, 30, run, **options), 2)]
        found.append((losses, [*model.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))


def test_selective_scan() -> None:
    found = []
    for loop, options in ((loop_selective_scan.plain, {}), (fxremat.loop, {"slots": 3})):
        torch.manual_seed(0)
        model = loop_selective_scan.SelectiveScan(loop, **options)
        losses = [*itertools.islice(loop_selective_scan.train(model, 20), 2)]
        found.append((losses, [*model.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))


def test_adaptive_steps() -> None:
    found: list[tuple[torch.Tensor, int, torch.Tensor]] = []
    for solve in (loop_adaptive_steps.plainly, loop_adaptive_steps.solve):
        stiffness = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
        y, count = solve(stiffness)
        (gradient,) = torch.autograd.grad(y.sum(), stiffness)
        found.append((y.detach(), count, gradient))
    (y, count, gradient), (ours, steps, by_loop) = found
    assert count == steps > 50
    assert torch.equal(y, ours)
    assert torch.equal(gradient, by_loop)
