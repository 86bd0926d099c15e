"""Inductor's kernels under plans on CUDA: bits, the random stream, and the allocator's peak.

FXREMAT_TEST_DEVICE=cpu runs the same tests on the CPU at small sizes, so that they can't rot.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxremat
from benchmarks.counters import step_peaks
from benchmarks.measure import Step, rng_state, same
from tests.gpu.test_cuda import (
    DEVICE,
    ON_CUDA,
    Record,
    _repeatable_kernels,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    convolutions,
    images,
    needs,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="needs a CUDA device"),
]

Batches = Callable[[int], tuple[Tensor, ...]]

WIDTH, ROWS = (1024, 4096) if ON_CUDA else (64, 256)


def multi_layer() -> nn.Module:
    """A multi-layer perceptron with dropout; returns its loss."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(0.1)]

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(*layers, nn.Linear(WIDTH, 10))

        def forward(self, rows: Tensor, targets: Tensor) -> Tensor:
            return nn.functional.cross_entropy(self.net(rows), targets)

    return Loss().to(DEVICE)


def rows(index: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(index)
    found = torch.randn(ROWS, WIDTH, generator=generator)
    return found.to(DEVICE), torch.randint(10, (ROWS,), generator=generator).to(DEVICE)


def gpt2() -> nn.Module:
    """A small GPT-2 of transformers with dropout; returns its loss."""
    needs("gpt2-sdpa")
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    width, length = (256, 256) if ON_CUDA else (32, 32)
    config = GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=width,
        vocab_size=256,
        n_positions=length,
        use_cache=False,
    )

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = GPT2LMHeadModel(config)

        def forward(self, tokens: Tensor) -> Tensor:
            found = self.net(input_ids=tokens).logits[:, :-1].flatten(0, 1)
            return nn.functional.cross_entropy(found, tokens[:, 1:].flatten())

    return Loss().to(DEVICE).train()


def tokens(index: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(index)
    shape = (8, 256) if ON_CUDA else (2, 32)
    return (torch.randint(256, shape, generator=generator).to(DEVICE),)


MODELS: dict[str, tuple[Callable[[], nn.Module], Batches]] = {
    "mlp": (multi_layer, rows),
    "gpt2": (gpt2, tokens),
    "convolutions": (convolutions, images),
}


def train(module: nn.Module, call: Callable[..., Tensor], batches: Batches) -> list[Tensor]:
    """Three optimizer steps from one seed: losses, gradients, random states, buffers."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    found: list[Tensor] = []
    for i in range(3):
        optimizer.zero_grad(set_to_none=True)
        loss = call(*batches(i))
        loss.backward()
        found += [loss.detach().clone(), *rng_state(DEVICE)]
        found += [p.grad.clone() for p in module.parameters() if p.grad is not None]
        optimizer.step()
    return [*found, *(t.detach().clone() for t in [*module.parameters(), *module.buffers()])]


def planned(module: nn.Module, budget: int | float) -> nn.Module:
    return fxremat.optimize(
        module, budget=budget, executor="inductor", time_limit_s=5.0, fullgraph=True
    )


@pytest.mark.parametrize("name", MODELS)
def test_kernels_under_a_plan_leave_the_same_bits(name: str, record_property: Record) -> None:
    """Those of the same kernels with nothing recomputed; and the peak is the plan's."""
    make, batches = MODELS[name]
    module = make()
    expected = train(module, planned(module, 1.0), batches)
    compiled = make()
    plain = train(compiled, torch.compile(compiled, fullgraph=True), batches)
    equal = [same(a, b) for a, b in zip(expected, plain, strict=True)]
    record_property("tensors with torch.compile's bits", f"{sum(equal)} of {len(equal)}")
    for budget in (0.7, 0.5):
        module = make()
        try:
            optimized = planned(module, budget)
            found = train(module, optimized, batches)
        except fxremat.BudgetInfeasible as error:
            record_property(f"{budget} of it", f"below {error.floor_bytes}")
            module = make()
            optimized = planned(module, error.floor_bytes)
            found = train(module, optimized, batches)
        unequal = [not same(a, b) for a, b in zip(expected, found, strict=True)]
        assert not any(unequal), f"{sum(unequal)} of {len(unequal)} tensors differ"
        peaks = step_peaks(Step(module, optimized), batches(0), DEVICE)
        about = fxremat.explain(optimized)
        record_property(f"budget at {budget}", about.budget_bytes)
        record_property(f"planned at {budget}", about.planned_peak_bytes)
        record_property(f"measured at {budget}", peaks.allocated_bytes)
        record_property(f"requested at {budget}", peaks.requested_bytes)
        requested = peaks.requested_bytes
        counted = peaks.allocated_bytes if requested is None else requested
        assert counted <= about.planned_peak_bytes
        assert peaks.allocated_bytes <= about.budget_bytes
        if not ON_CUDA:
            assert peaks.allocated_bytes == about.planned_peak_bytes
