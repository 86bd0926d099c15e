"""Any schedule that the oracle accepts is carried out op for op, with the same bits.

    x -> linear -> gelu -> dropout -> ... -> loss       (three blocks, and BatchNorm at the end)

Random schedules recompute random ops at random places, some of them many times.
"""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of
from fxremat.rewrite import rewrite
from fxremat_solvers import RematProblem, Schedule, baseline, simulate
from tests.numerics.steps import assert_same, plan_of, run_steps, tightly_optimized


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))
        self.norm = nn.BatchNorm1d(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + F.dropout(F.gelu(layer(x)), 0.3, self.training)
        return self.norm(x).square().mean()


def scattered(problem: RematProblem, seed: int) -> Schedule:
    """The baseline with recomputations strewn in, each where its inputs exist."""
    draw = random.Random(seed)
    ops = list(baseline(problem).ops)
    for _ in range(25):
        position = draw.randrange(1, len(ops) + 1)
        candidates = [op for op in set(ops[:position]) if problem.ops[op].recomputable]
        if candidates:
            ops.insert(position, draw.choice(sorted(candidates)))
    return useful(problem, ops)


def useful(problem: RematProblem, ops: list[int]) -> Schedule:
    """Without recomputations whose results nobody reads."""
    while True:
        replay = simulate(problem, ops)
        seen: set[int] = set()
        for step, op in enumerate(ops):
            if op in seen and set(replay.runs[step].outputs) <= set(replay.dies[step]):
                del ops[step]
                break
            seen.add(op)
        else:
            return Schedule(tuple(ops))


@pytest.mark.parametrize("seed", range(4))
def test_random_schedules(seed: int) -> None:
    torch.manual_seed(seed)
    module = Blocks()
    twin = copy.deepcopy(module)
    chosen: list[Schedule] = []

    def scatter(name: str, state: Any, _seconds: float) -> Any:
        if name != "solve":
            return state
        plan = state.plan
        schedule = scattered(plan.lowering.problem, seed)
        chosen.append(schedule)
        replay = simulate(plan.problem, schedule)
        solution = replace(plan.solution, schedule=schedule, cost=replay.cost)
        plan = replace(plan, solution=solution, simulation=replay)
        return replace(state, plan=plan)

    optimized = fxremat.optimize(module, budget=1.0)
    compiled_of(optimized).backend.between = (scatter,)
    batches = [(torch.randn(32, 12),) for _ in range(3)]
    expected = run_steps(twin, twin, batches)
    assert_same(expected, run_steps(module, optimized, batches))
    runs = [chosen[0].ops.count(op) for op in set(chosen[0].ops)]
    assert max(runs) > 2, "the test should recompute an op more than once"
    module.zero_grad(set_to_none=True)
    measured = fxremat.measure_peak(lambda: optimized(*batches[0]).backward()).peak_bytes
    assert measured == plan_of(optimized).peak_bytes


def tightly_planned() -> nn.Module:
    batch = (torch.randn(256, 12),)
    return tightly_optimized(Blocks(), batch, example_inputs=batch)


def test_names_of_recomputed_nodes() -> None:
    optimized = tightly_planned()
    plan = plan_of(optimized)
    rewritten = rewrite(plan.graph, plan.program)
    recomputed = {run.operation.name for run in plan.program.backward if not run.first}
    names = {node.name for node in rewritten.backward.graph.nodes}
    assert recomputed
    assert all(any(n.startswith(f"{name}_recomputed") for n in names) for name in recomputed)


def test_the_joint_graph_is_not_changed() -> None:
    optimized = tightly_planned()
    joint = plan_of(optimized).graph.module
    assert not any("recomputed" in node.name for node in joint.graph.nodes)
    joint.graph.lint()


class _Noise(torch.autograd.Function):
    """Draws in forward what only backward reads."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        noise = torch.rand_like(x)
        ctx.save_for_backward(noise)
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (noise,) = ctx.saved_tensors
        return gradient * noise


def test_forward_draws_stay_before_backward() -> None:
    weight = nn.Parameter(torch.randn(8, 8))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return _Noise.apply(x @ weight).square().sum()

    x = torch.randn(4, 8)
    plan = plan_of(fxremat.optimize(loss, budget=1.0, example_inputs=(x,)))
    problem = plan.problem
    (draw,) = (op for op in problem.ops if op.name == "rand_like")
    boundary = problem.ops[plan.lowering.tangents_op]
    assert set(draw.outputs) & set(boundary.inputs), "the draw could move into backward"
