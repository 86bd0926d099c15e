"""Planning ahead, by tracing alone: nothing of the user's changes, and the plan is what runs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of
from tests.numerics.steps import plan_of

X = torch.randn(512, 16)


def layers() -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(4)))


class Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layers(x).square().mean()


def test_planning_ahead_runs_nothing() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.GELU())
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    state, python_state = torch.get_rng_state(), random.getstate()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return model(x).sum() * random.uniform(0, 1)

    fxremat.optimize(loss, budget=1.0, example_inputs=X)
    assert torch.equal(state, torch.get_rng_state())
    assert random.getstate() == python_state
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
    assert all(parameter.grad is None for parameter in model.parameters())
    counting = Loss()
    fxremat.optimize(counting, budget=1.0, example_inputs=X)
    assert counting.calls == 0


def test_the_plan_that_was_made_ahead_is_the_one_that_runs() -> None:
    optimized = fxremat.optimize(layers(), budget=0.8, example_inputs=X)
    ahead = plan_of(optimized)
    floor = fxremat.floor(optimized)
    optimized(X).sum().backward()
    assert len(compiled_of(optimized).backend.history.graphs) == 1
    assert plan_of(optimized).solution is ahead.solution
    assert fxremat.explain(optimized).floor_bytes == floor, "searched for once"


def test_inputs_of_another_shape_have_a_plan_of_their_own() -> None:
    optimized = fxremat.optimize(layers(), budget=0.8, example_inputs=X)
    optimized(X[:100]).sum().backward()
    optimized(X).sum().backward()
    shapes = [graph.input_shapes for graph in compiled_of(optimized).backend.history.graphs]
    assert [(100, 16) in found for found in shapes].count(True) == 1
    assert [(512, 16) in found for found in shapes].count(True) == 1


def test_a_number_that_changes_after_planning_ahead() -> None:
    """Dynamo takes a number for a symbol the second time that it traces; planning is no time."""
    linear = nn.Linear(8, 8)

    def loss(x: torch.Tensor, n: int) -> torch.Tensor:
        # A symbol has no such text.
        return linear(x).mean() * len(str((n, tuple(x.shape))))

    optimized = fxremat.optimize(loss, budget=1.0, example_inputs=(torch.randn(64, 8), 2))
    for function in (optimized, fxremat.optimize(loss, budget=1.0)):
        for rows, n in ((48, 3), (32, 4)):
            x = torch.randn(rows, 8)
            assert torch.equal(function(x, n), loss(x, n))


def test_threads_may_plan_ahead_at_once() -> None:
    failed: list[BaseException] = []

    def plan() -> None:
        try:
            fxremat.optimize(layers(), budget=0.8, example_inputs=X)(X).sum().backward()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=plan) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    fxremat.optimize(layers(), budget=0.8)(X).sum().backward()


def test_inference_mode_around_planning_ahead() -> None:
    model = layers()
    with torch.inference_mode(), pytest.raises(fxremat.BudgetInfeasible):
        fxremat.optimize(model, budget=1000, example_inputs=X)


def test_errors_of_planning_ahead_show_few_frames() -> None:
    with pytest.raises(fxremat.BudgetInfeasible) as caught:
        fxremat.optimize(layers(), budget=1000, example_inputs=X)
    files = [entry.path for entry in caught.traceback]
    assert not any("/torch/_" in str(path) for path in files)


FORKED = """
    import os
    import torch
    from torch import nn
    import fxremat

    torch.set_num_threads(1)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(3)))
    x = torch.randn(256, 16)

    def gradients(step, x):
        return torch.autograd.grad(step(x), tuple(model.parameters()))

    def check(optimized, *sizes):
        for size in sizes:
            loss = model(x[:size]).square().sum()
            expected = torch.autograd.grad(loss, tuple(model.parameters()))
            assert all(map(torch.equal, expected, gradients(optimized, x[:size])))

    for planned in (False, True):
        loss = lambda x: model(x).square().sum()
        optimized = fxremat.optimize(loss, budget=0.9, cost="flops", preset="brief")
        if planned:
            check(optimized, 256)
        child = os.fork()
        if not child:
            check(optimized, 256, 100)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        check(optimized, 256, 100)
        print("same")
"""


def test_a_forked_process_trains_by_the_plan_and_plans_anew() -> None:
    """Whether the step was planned before the fork or not."""
    root = Path(__file__).parents[3]
    paths = os.pathsep.join([str(root), str(root / "solvers"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKED)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "same\n" * 2, done.stderr[-2000:]


def test_threads_may_compile_at_once() -> None:
    """Two models and one, trained in turns; Dynamo compiles them one after the other."""
    models = [layers() for _ in range(2)]
    expected = [torch.autograd.grad(m(X).sum(), tuple(m.parameters())) for m in models]
    found: dict[int, tuple[torch.Tensor, ...]] = {}

    def train(index: int) -> None:
        model = models[index % 2]
        optimized = fxremat.optimize(model, budget=0.8, cost="flops")
        found[index] = torch.autograd.grad(optimized(X).sum(), tuple(model.parameters()))

    threads = [threading.Thread(target=train, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2]
    for index, gradients in found.items():
        assert all(map(torch.equal, expected[index % 2], gradients))
