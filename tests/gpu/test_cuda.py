"""The same promises on CUDA: bits, the random stream, and the peak by the allocator's counters."""

from __future__ import annotations

import copy

import pytest
import torch

import fxremat
from benchmarks import zoo

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("name", ["gpt2-eager", "bert-sdpa", "vgg16bn", "unet"])
def test_steps_on_cuda(name: str) -> None:
    torch._dynamo.reset()
    workload = zoo.get(name).make("bench", seed=0)
    module = workload.step_module().to("cuda")
    twin = copy.deepcopy(module)
    batches = [tuple(t.to("cuda") for t in workload.batch(i)) for i in range(3)]
    reference = fxremat.optimize(twin, budget=1.0)
    optimized = fxremat.optimize(module, budget=0.7)
    for batch in batches:
        for call, owner in ((reference, twin), (optimized, module)):
            torch.manual_seed(5)
            owner.zero_grad(set_to_none=True)
            call(*batch).backward()
            owner.rng_state = torch.cuda.get_rng_state()
        assert torch.equal(module.rng_state, twin.rng_state)
        for (key, a), b in zip(module.named_parameters(), twin.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), key
            assert a.grad is None or torch.equal(a.grad, b.grad), key
    module.zero_grad(set_to_none=True)
    measured = fxremat.measure_peak(lambda: optimized(*batches[0]).backward(), device="cuda")
    report = fxremat.explain(optimized)
    assert measured.peak_bytes <= report.budget_bytes
    assert measured.peak_bytes == pytest.approx(report.planned_peak_bytes, rel=0.02)
