"""Where kernels return other layouts than their traces, plans are made from the kernels'."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxremat
from fxremat.capture.kernel_layouts import set_kernel_layouts
from fxremat.capture.read import read_joint_graph
from fxremat.graph import JointGraph
from fxremat.measure.profile_ops import OpProfiles
from fxremat.nodes import outputs_of, traced_value
from tests.fxremat.test_torch_hooks import traced
from tests.numerics.steps import assert_same, plan_of, run_steps, tight_budget


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)


aten = torch.ops.aten


def joint_of(function: Callable[..., Any], *inputs: torch.Tensor) -> JointGraph:
    module, count, _ = traced(function, *inputs)
    return read_joint_graph(module, count)


def with_kernel_layouts(joint: JointGraph) -> JointGraph:
    if not set_kernel_layouts(joint, OpProfiles()):
        return joint
    return read_joint_graph(joint.module, joint.num_fwd_outputs)


def values(joint: JointGraph) -> list[Any]:
    return [v for n in joint.module.graph.nodes for v in outputs_of(traced_value(n))]


def channels_last(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).to(memory_format=torch.channels_last)


def test_strides_of_the_kernel_reach_what_comes_after() -> None:
    x = channels_last(2, 4, 6, 6).requires_grad_()
    joint = joint_of(lambda x, y: F.mse_loss(x.sin(), y), x, torch.randn(2, 4, 6, 6))
    corrected = with_kernel_layouts(joint)
    found = {str(n.target): traced_value(n) for n in corrected.nodes}
    # Traced like the prediction, really like the target.
    assert found["aten.mse_loss_backward.default"].is_contiguous()
    # The loss is a scalar in a block as large as its input.
    assert found["aten.mse_loss.default"].untyped_storage().nbytes() == x.nbytes


def test_results_that_a_kernel_leaves_out_are_missing_for_what_comes_after() -> None:
    rows, bags = torch.tensor([0, 2, 1, 1, 3]), torch.tensor([0, 3])
    weights = torch.rand(5, dtype=torch.bfloat16)
    table = torch.rand(10, 5, dtype=torch.bfloat16, requires_grad=True)

    def loss(table: torch.Tensor) -> torch.Tensor:
        looked_up = F.embedding_bag(rows, table.sin(), bags, mode="sum", per_sample_weights=weights)
        return looked_up.sum()

    call = fxremat.optimize(loss, budget=1.0)
    call(table).backward()
    table.grad = None
    taken = fxremat.measure_peak(lambda: call(table).backward())
    # Backward works out again which bag each row belongs to.
    assert taken.peak_bytes <= plan_of(call).peak_bytes


def test_what_is_right_as_traced_stays_the_same_object() -> None:
    x = torch.randn(8, 8, requires_grad=True)
    joint = joint_of(lambda x: (x.sin().t() @ x).sum(), x)
    before = values(joint)
    assert with_kernel_layouts(joint) is joint
    assert all(a is b for a, b in zip(before, values(joint), strict=True))


class Transposed(nn.Module):
    """A prediction that is a transposed view: its gradient has the target's strides.

    AOTAutograd's own backward dies at the view that it traced of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(self.layers(x).transpose(0, 1), y)


def test_a_view_that_the_kernels_strides_dont_allow_gets_a_copy() -> None:
    model = Transposed()
    x, y = torch.randn(6, 4, 8), torch.randn(4, 6, 8)
    corrected = with_kernel_layouts(joint_of(model, x, y))
    assert [n.target for n in corrected.nodes].count(aten.clone.default) == 1
    twin = copy.deepcopy(model)
    batches = [(torch.randn(6, 4, 8), torch.randn(4, 6, 8)) for _ in range(3)]
    expected = run_steps(twin, twin, batches)
    optimized = fxremat.optimize(model, budget=1.0)
    assert_same(expected, run_steps(model, optimized, batches))

    def step() -> None:
        optimized(*batches[0]).backward()

    model.zero_grad(set_to_none=True)
    assert fxremat.measure_peak(step).peak_bytes == plan_of(optimized).peak_bytes


def test_views_have_the_strides_that_the_op_gives_dimensions_of_size_1() -> None:
    # Traced, a view of the same shape keeps its source's; a convolution chooses its kernel by them.
    kernel = torch.rand(1, 1, 4, 4)

    def one_channel(x: torch.Tensor) -> torch.Tensor:
        image = x.tanh().view(-1, 18, 18, 1).permute(0, 3, 1, 2).reshape(-1, 1, 18, 18)
        return F.conv2d(image, kernel).sin().mean()

    x = torch.randn(64, 18, 18, requires_grad=True)
    corrected = with_kernel_layouts(joint_of(one_channel, x))
    (convolution,) = (n for n in corrected.nodes if "aten.convolution.default" in str(n.target))
    assert traced_value(convolution.args[0]).stride() == (324, 324, 18, 1)
    optimized = fxremat.optimize(one_channel, budget=1.0)
    for _ in range(2):
        optimized(x).backward()
        x.grad = None
    measured = fxremat.measure_peak(lambda: optimized(x).backward()).peak_bytes
    assert measured == plan_of(optimized).peak_bytes


def test_kernels_strides_of_dimensions_of_size_1() -> None:
    # A convolution's backward chooses its kernel by them, too.
    x = torch.empty_strided((4, 8, 1, 1), (8, 1, 8, 8)).normal_().requires_grad_()
    corrected = with_kernel_layouts(joint_of(lambda x: F.gelu(x).exp().sum(), x))
    (exp,) = (n for n in corrected.nodes if n.target is torch.ops.aten.exp.default)
    assert traced_value(exp).stride() == F.gelu(x).exp().stride()


def test_aliases_stay_aliases() -> None:
    x = channels_last(2, 4, 6, 6).requires_grad_()
    y = torch.randn(2, 4, 6, 6)
    joint = joint_of(lambda x, y: F.mse_loss(x.sin().relu(), y).exp(), x, y)
    corrected = with_kernel_layouts(joint)
    assert corrected is not joint
    assert len(corrected.storages) == len(joint.storages)
    assert [s.maker for s in corrected.storages] == [s.maker for s in joint.storages]
    named = {n.name: s.index for n, s in joint.storage_of.items()}
    assert {n.name: s.index for n, s in corrected.storage_of.items()} == named


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 4, 3, padding=1), nn.SiLU()
        )

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(self.layers(x), y)


class Spectrum(nn.Module):
    """One-sided transforms: in backward, copies into slices of other strides than traced."""

    def __init__(self, transform: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)
        self.transform = transform

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.transform(torch.tanh(self.linear(x)))
        return (torch.view_as_real(h.resolve_conj()) if h.is_complex() else h).square().mean()


@pytest.mark.parametrize("fraction", [1.0, 0.95])
@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (Convolutions().to(memory_format=torch.channels_last), [(4, 4, 16, 16)] * 2),
        *(
            (Spectrum(transform), [(6, 10, 32)])
            for transform in (torch.fft.rfftn, torch.fft.irfft2, torch.fft.hfft)
        ),
    ],
    ids=["channels_last", "rfftn", "irfft2", "hfft"],
)
def test_peaks_hold(module: nn.Module, shapes: list[tuple[int, ...]], fraction: float) -> None:
    inputs = [torch.randn(shape) for shape in shapes]
    if len(inputs) == 2:
        inputs[0] = inputs[0].to(memory_format=torch.channels_last)
    optimized = fxremat.optimize(module, budget=fraction)
    batches = [tuple(inputs)] * 3
    try:
        found = run_steps(module, optimized, batches)
    except fxremat.BudgetInfeasible:
        pytest.skip("nothing to gain here on this processor")
    assert_same(run_steps(module, module, batches), found)

    def step() -> None:
        optimized(*inputs).backward()

    module.zero_grad(set_to_none=True)
    measured = fxremat.measure_peak(step).peak_bytes
    assert measured <= plan_of(optimized).peak_bytes <= plan_of(optimized).budget_bytes


class Normalised(nn.Module):
    """Under autocast BatchNorm's statistics are traced as bfloat16; the kernel's are float32."""

    def __init__(self) -> None:
        super().__init__()
        block = (nn.Linear(32, 32), nn.GELU(), nn.Dropout(0.2))
        self.layers = nn.Sequential(*(copy.deepcopy(m) for _ in range(3) for m in block))
        self.norm = nn.BatchNorm1d(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.norm(self.layers(x)).square().mean()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_types_of_the_kernel(share: float) -> None:
    module, x = Normalised(), torch.randn(512, 32)
    twin, batches = copy.deepcopy(module), [(x,)] * 3
    budget = tight_budget(module, (x,), share)
    optimized = fxremat.optimize(module, budget=budget, cost="flops")
    assert_same(run_steps(twin, twin, batches), run_steps(module, optimized, batches))
    module.zero_grad(set_to_none=True)
    measured = fxremat.measure_peak(lambda: optimized(x).backward()).peak_bytes
    assert measured <= plan_of(optimized).peak_bytes <= plan_of(optimized).budget_bytes
