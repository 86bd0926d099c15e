"""Steps of many graphs on CUDA: recorded by the allocator's counters, planned under one budget.

As tests/gpu/test_cuda.py: held against eager, and run on the CPU at small sizes as well.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import fxremat
from benchmarks.measure import rng_state, same
from tests.gpu.test_cuda import (
    DEVICE,
    ON_CUDA,
    Record,
    _repeatable_kernels,  # noqa: F401  # pyright: ignore[reportUnusedImport]
)

WIDTH, BATCH = (256, 8192) if ON_CUDA else (32, 128)
STEPS = 4

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="needs a CUDA device"),
]

Call = Callable[[Tensor], Tensor]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(WIDTH), nn.Dropout(0.1)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.gelu(self.up(self.norm(x)))
        return x + self.down(self.dropout(h))


class Net(nn.Module):
    """Blocks; `broken` reads a number in the middle, as a model that logs does."""

    def __init__(self, depth: int = 4, *, broken: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(*(Block() for _ in range(depth // 2)))
        self.second = nn.Sequential(*(Block() for _ in range(depth - depth // 2)))
        self.broken, self.seen = broken, 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.broken:
            torch._dynamo.graph_break()
            self.seen = float(x.detach().abs().max())
        return self.second(x).square().mean()


def net(*, broken: bool = False) -> Net:
    torch.manual_seed(0)
    return Net(broken=broken).to(DEVICE)


def batch(index: int) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(BATCH, WIDTH, generator=generator).to(DEVICE)


def train(model: nn.Module, step: Call) -> list[Tensor]:
    """What some steps leave: losses, gradients, random states, parameters."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(7)
    seen: list[Tensor] = []
    for index in range(STEPS):
        optimizer.zero_grad()
        loss = step(batch(index))
        seen += [loss.detach().clone(), *rng_state(DEVICE)]
        seen += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        del loss
        optimizer.step()
    return [*seen, *(p.detach().clone() for p in model.parameters())]


def peak_of(model: nn.Module, step: Call) -> int:
    model.zero_grad()
    x = batch(0)
    return fxremat.measure_peak(lambda: step(x), device=DEVICE).peak_bytes


def backward_of(call: Callable[[Tensor], Any]) -> Call:
    def step(x: Tensor) -> Tensor:
        loss = call(x)
        loss.backward()
        return loss

    return step


def known(*, broken: bool = False) -> tuple[list[Tensor], int]:
    """Eager's bits and peak."""
    model = net(broken=broken)
    step = backward_of(model)
    return train(model, step), peak_of(model, step)


def hold(model: nn.Module, step: Call, expected: list[Tensor], budget: int, record: Record) -> None:
    """The step has eager's bits, and keeps within its budget."""
    seen = train(model, step)
    unequal = sum(not same(a, b) for a, b in zip(seen, expected, strict=True))
    peak = peak_of(model, step)
    record("budget_bytes", budget)
    record("measured_peak_bytes", peak)
    assert not unequal, f"{unequal} of {len(seen)} tensors differ"
    assert peak <= budget


@pytest.mark.parametrize("share", [0.8, 0.65])
def test_a_broken_model(share: float, record_property: Record) -> None:
    expected, most = known(broken=True)
    model, budget = net(broken=True), int(share * most)
    optimized = fxremat.optimize(model, budget=budget)
    hold(model, backward_of(optimized), expected, budget, record_property)
    report = fxremat.explain_step(optimized)
    record_property("planned_peak_bytes", report.planned_peak_bytes)
    assert len(report.calls) >= 2


def test_blocks_one_by_one(record_property: Record) -> None:
    expected, most = known()
    model, budget = net(), int(0.7 * most)
    optimized = fxremat.optimize(model, budget=budget, regions="blocks")
    hold(model, backward_of(optimized), expected, budget, record_property)
    record_property("planned_peak_bytes", fxremat.explain_step(optimized).planned_peak_bytes)


def test_optimized_blocks_share_a_budget(record_property: Record) -> None:
    expected, most = known()
    model = net()
    budget = fxremat.StepBudget(int(0.7 * most))
    for half in (model.first, model.second):
        for index, each in enumerate(half):
            half[index] = fxremat.optimize(each, budget=budget)
    hold(model, backward_of(model), expected, int(0.7 * most), record_property)


def test_microbatches_in_a_step(record_property: Record) -> None:
    """Two forwards before their backwards."""

    def doubled(call: Callable[[Tensor], Any]) -> Call:
        def step(x: Tensor) -> Tensor:
            one, other = call(x[: BATCH // 2]), call(x[BATCH // 2 :])
            loss = one + other
            loss.backward()
            return loss

        return step

    reference = net()
    expected = train(reference, doubled(reference))
    most = peak_of(reference, doubled(reference))
    model, budget = net(), int(0.75 * most)
    optimized = fxremat.optimize(model, budget=budget)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*forward")
        hold(model, doubled(optimized), expected, budget, record_property)


@pytest.mark.filterwarnings("error:after .* steps there is no plan")
def test_warmup_leaves_no_trace() -> None:
    model = net(broken=True)
    optimized = fxremat.optimize(model, budget=0.8)
    torch.manual_seed(5)
    before = rng_state(DEVICE)
    fxremat.warmup(lambda: backward_of(optimized)(batch(0)), optimized)
    assert all(map(torch.equal, before, rng_state(DEVICE)))
    assert all(p.grad is None for p in model.parameters())
    expected, _ = known(broken=True)
    assert all(map(same, train(model, backward_of(optimized)), expected))


@pytest.fixture
def one_rank() -> Iterator[None]:
    """A process group of one, of the device's own library of collectives."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "nccl" if ON_CUDA else "gloo",
            init_method=f"file://{folder}/store",
            rank=0,
            world_size=1,
        )
        yield
        dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_data_parallel(record_property: Record) -> None:
    def wrapped(model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model, gradient_as_bucket_view=True)

    reference = net()
    parallel = wrapped(reference)
    expected = train(reference, backward_of(parallel))
    most = peak_of(reference, backward_of(parallel))
    model, budget = net(), int(0.8 * most)
    optimized = wrapped(fxremat.optimize(model, budget=budget))
    hold(model, backward_of(optimized), expected, budget, record_property)


@pytest.mark.usefixtures("one_rank")
def test_fully_sharded(record_property: Record) -> None:
    """Blocks are sharded each, then the model; the budget is a share of what fxremat finds."""

    def sharded() -> nn.Module:
        model = net()
        for each in [*model.first, *model.second]:
            fully_shard(each)
        return fully_shard(model)

    def local(model: nn.Module, step: Call) -> list[Tensor]:
        return [t.to_local() if hasattr(t, "to_local") else t for t in train(model, step)]

    reference = sharded()
    expected = local(reference, backward_of(reference))
    most = peak_of(reference, backward_of(reference))
    model, budget = sharded(), int(0.8 * most)
    optimized = fxremat.optimize(model, budget=budget)
    seen = local(model, backward_of(optimized))
    record_property("budget_bytes", budget)
    record_property("measured_peak_bytes", peak := peak_of(model, backward_of(optimized)))
    assert all(map(same, seen, expected))
    assert peak <= budget
