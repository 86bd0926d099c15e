"""Dropout on the CPU, split into drawing and applying: eager's own bits, wherever it is used."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

import fxremat
from fxremat.capture.cpu_dropout import split_dropout
from fxremat.graph import Form
from tests.numerics.steps import (
    assert_same,
    check_input_gradient,
    plan_of,
    run_steps,
    tight_budget,
)

aten = torch.ops.aten
ours = torch.ops.fxremat

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# At 0.04, 0.15, 0.42 and 0.97 torch's own op rounds otherwise than eager in float32.
PROBABILITIES = (0.01, 0.04, 0.1, 0.15, 0.2, 0.3, 0.42, 0.5, 0.77, 0.9, 0.97)
INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """For comparisons that tell -0 from 0 and see NaNs."""
    return tensor.view(INTEGER[tensor.element_size()])


def sample(dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(3, 8, 17, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    odd = torch.tensor([float("inf"), -float("inf"), float("nan"), -0.0, 0.0, 6e4, 1e-7])
    x.view(-1)[:7] = x.view(-1)[700:707] = odd
    return x.to(dtype)


def split_graph(function: Any, *inputs: torch.Tensor) -> fx.GraphModule:
    module = make_fx(function, tracing_mode="fake")(*inputs)
    split_dropout(module)
    module.graph.lint()
    module.recompile()
    return module


def targets(module: fx.GraphModule) -> set[Any]:
    return {n.target for n in module.graph.nodes if n.op == "call_function"} - {operator.getitem}


def forward_and_backward(p: float) -> Callable[..., tuple[torch.Tensor, ...]]:
    """What a traced graph has where `F.dropout` is differentiated."""

    def run(x: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, mask = aten.native_dropout(x, p, True)
        return y, aten.native_dropout_backward(gradient, mask, 1 / (1 - p))

    return run


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bits_and_random_state_are_eagers(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = sample(dtype).contiguous(memory_format=layout).requires_grad_()
    gradient = sample(dtype).flip(0).contiguous(memory_format=layout)
    for p in PROBABILITIES:
        split = split_graph(forward_and_backward(p), x.detach(), gradient)
        assert targets(split) == {ours.dropout_mask.default, ours.apply_mask.default}, p
        torch.manual_seed(1)
        y = F.dropout(x, p, training=True)
        state = torch.get_rng_state()
        (want,) = torch.autograd.grad(y, x, gradient)
        torch.manual_seed(1)
        found = split(x.detach(), gradient)
        assert torch.equal(torch.get_rng_state(), state)
        for a, b in zip((y.detach(), want), found, strict=True):
            assert a.stride() == b.stride()
            assert a.dtype == b.dtype
            assert torch.equal(bits(a), bits(b)), p


@pytest.mark.parametrize(
    ("p", "train"),
    [(0.0, True), (1.0, True), (0.3, False), (0.3, None)],
    ids=["none", "all", "eval", "unknown"],
)
def test_dropouts_that_draw_nothing_stay(p: float, train: bool | None) -> None:
    split = split_graph(lambda x: aten.native_dropout(x, p, train)[0], torch.ones(4, 5))
    assert targets(split) == {aten.native_dropout.default}


def test_what_ours_would_change_stays() -> None:
    def dropout(x: torch.Tensor) -> torch.Tensor:
        return aten.native_dropout(x, 0.5, True)[0]

    nearly_all = 1 - 1e-6
    for function, x in (
        (dropout, torch.ones(6, 8)[:, ::2]),  # not dense
        (dropout, torch.ones(0, 8)),
        (lambda x: aten.native_dropout(x, nearly_all, True)[0], torch.ones(4).half()),  # x inf
    ):
        assert targets(split_graph(function, x)) == {aten.native_dropout.default}
    # The backward of another dropout, another scale.
    mask = torch.ones(6, 4, dtype=torch.bool)
    split = split_graph(
        lambda x, m: aten.native_dropout_backward(x, m, 2.0), torch.ones(6, 4), mask
    )
    assert targets(split) == {aten.native_dropout_backward.default}
    split = split_graph(
        lambda x: aten.native_dropout_backward(x, aten.native_dropout(x, 0.5, True)[1], 3.0),
        torch.ones(6, 4),
    )
    assert aten.native_dropout_backward.default in targets(split)


def test_strides_that_tracing_gets_wrong() -> None:
    """Training BatchNorm of a transposed input: traced as transposed, in fact contiguous."""

    def step(x: torch.Tensor) -> torch.Tensor:
        x = F.batch_norm(x.transpose(1, 2), None, None, training=True)
        return F.dropout(x, 0.3).square().sum()

    optimized = fxremat.optimize(step, budget=1.0)
    x = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(0))
    check_input_gradient(step, optimized, x)


class Attention(nn.Module):
    """One unfused attention with dropout, whose L x L mask is a quarter of its matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 48) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            q, k, v = layer(x).chunk(3, dim=-1)
            weights = F.dropout(torch.softmax(q @ k.mT, -1), 0.15, self.training)
            x = x + F.dropout(weights @ v, 0.42, self.training)
        return x.square().mean()


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_plans_keep_masks_and_apply_them_again(share: float) -> None:
    eager = Attention()
    module = copy.deepcopy(eager)
    batches = [(torch.randn(4, 96, 16),) for _ in range(3)]
    budget = tight_budget(module, batches[0], share)
    # By FLOPs, so that the plan is the same in every run.
    step = fxremat.optimize(module, budget=budget, cost="flops", example_inputs=batches[0])
    assert_same(run_steps(eager, eager, batches), run_steps(module, step, batches))
    plan = plan_of(step, 0)
    runs = [run.operation.node.target for run in (*plan.program.forward, *plan.program.backward)]
    assert aten.native_dropout.default not in runs
    masks = [o for o in plan.graph.operations if o.node.target is ours.dropout_mask.default]
    assert {o.mode.form for o in masks} == {Form.REPLAY_RNG}
    if share == 0.25:
        applied = runs.count(ours.apply_mask.default)
        assert applied > 2 * len(masks), "forward, backward, and forward again"
        assert runs.count(ours.dropout_mask.default) == len(masks), "no mask is drawn again"
