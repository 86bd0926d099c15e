"""Everything a training step may do besides a plain forward and backward: right, bit for bit."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxremat
from fxremat.graph import Form
from tests.numerics.steps import (
    assert_same,
    check_against_untouched,
    check_input_gradient,
    plan_of,
    recomputations,
    run_steps,
    tight_budget,
    tightly_optimized,
)


class Deep(nn.Module):
    """Blocks of Linear, GELU and dropout: plenty to recompute, random numbers in every block."""

    def __init__(self, width: int = 24, depth: int = 5) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def body(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + F.dropout(F.gelu(layer(x)), 0.2, self.training)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).square().mean()


def batches(*shape: int, count: int = 3) -> list[tuple[torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(*shape, generator=generator),) for _ in range(count)]


def test_dropout_replays_its_random_numbers() -> None:
    # At the floor: where there is room, masks are kept and nothing is drawn again.
    optimized = check_against_untouched(Deep(), batches(1024, 24), share=0, cost="flops")
    plan = plan_of(optimized)
    replayed = [
        run.operation
        for run in plan.program.backward
        if run.operation.mode.form is Form.REPLAY_RNG and not run.first
    ]
    assert replayed, "the test should draw a mask again"


def test_autocast_bf16() -> None:
    class Mixed(Deep):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.body(x).float().square().mean()

    check_against_untouched(Mixed(), batches(128, 24), reference="aot")


class UnderAutocast(nn.Module):
    """Calls a module under autocast; backward is called outside of it, as torch recommends."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.call(*batch)


class Attention(nn.Module):
    """Its backward multiplies float32 by bfloat16, which autocast would round."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(32, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.project(x).chunk(3, dim=-1)
        found = F.scaled_dot_product_attention(query, key, value, dropout_p=0.1)
        return found.float().square().mean()


def test_autocast_around_the_call_has_eagers_bits() -> None:
    module = Attention()
    own = copy.deepcopy(module)
    data = [(torch.randn(4, 8, 32),) for _ in range(3)]
    expected = run_steps(module, UnderAutocast(module), data)
    found = run_steps(own, UnderAutocast(fxremat.optimize(own, budget=1.0, cost="flops")), data)
    assert_same(expected, found)


def test_a_backward_under_autocast_is_heard_once() -> None:
    optimized = fxremat.optimize(Attention(), budget=1.0, cost="flops")
    with torch.autocast("cpu", torch.bfloat16):
        loss = optimized(torch.randn(4, 8, 32))
        with pytest.warns(UserWarning, match="End the autocast block after the forward"):
            loss.backward()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimized(torch.randn(4, 8, 32)).backward()


def test_tied_weights() -> None:
    class Tied(Deep):
        def __init__(self) -> None:
            super().__init__()
            self.layers[3].weight = self.layers[1].weight

    check_against_untouched(Tied(), batches(128, 24))


def test_batch_norm_statistics_are_updated_once() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(4))
            self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = F.relu(norm(conv(x)))
            return x.square().mean()

    optimized = check_against_untouched(Normed(), batches(4, 6, 12, 12), cost="flops")
    runs = plan_of(optimized).program.backward
    recomputed = {run.operation.name for run in runs if not run.first}
    assert any("batch_norm" in name for name in recomputed), recomputed


def test_in_place_operations_in_the_model() -> None:
    class InPlace(Deep):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                h = layer(x)
                h.mul_(1.5)
                x = F.gelu(h).add_(x)
            return x.square().mean()

    check_against_untouched(InPlace(), batches(128, 24))


def test_a_buffer_that_the_model_counts_in() -> None:
    class Counting(Deep):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(24))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            y = self.body(x)
            with torch.no_grad():
                self.mean.mul_(0.9).add_(y.detach().mean(0), alpha=0.1)
            return (y * (1 + self.calls * 0.1)).square().mean()

    check_against_untouched(Counting(), batches(128, 24), reference="aot")


@dataclass
class Output:
    loss: torch.Tensor
    hidden: torch.Tensor
    count: int
    nothing: None


@pytest.mark.parametrize("kind", ["tuple", "dict", "dataclass"])
def test_structured_outputs_views_ints_and_none(kind: str) -> None:
    class Structured(Deep):
        def forward(self, x: torch.Tensor) -> Any:
            hidden = self.body(x)
            loss = hidden.square().mean()
            view = x[:, :3]
            if kind == "tuple":
                return loss, hidden.view(-1), view, 7, None
            if kind == "dict":
                return {"loss": loss, "hidden": hidden, "view": view, "count": 7, "nothing": None}
            return Output(loss, hidden, 7, None)

    def loss_of(outputs: Any, _batch: object) -> torch.Tensor:
        if kind == "tuple":
            assert outputs[3:] == (7, None)
            return outputs[0]
        if kind == "dict":
            assert outputs["count"] == 7
            assert outputs["nothing"] is None
            return outputs["loss"]
        assert isinstance(outputs, Output)
        return outputs.loss

    module, batch = Structured(), batches(128, 24)
    optimized = check_against_untouched(module, batch, loss_of)
    if kind == "tuple":
        outputs = optimized(*batch[0])
        assert outputs[2].untyped_storage().data_ptr() == batch[0][0].untyped_storage().data_ptr()


def test_both_outputs_differentiated_with_the_loss_outside() -> None:
    class Two(Deep):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.body(x)
            return y, y.sin()

    def loss_of(outputs: Any, _batch: object) -> torch.Tensor:
        return (outputs[0] * outputs[1]).mean()

    optimized = check_against_untouched(Two(), batches(128, 24), loss_of)
    assert any("outside" in note for note in fxremat.explain(optimized).notes)


def test_unused_and_frozen_parameters() -> None:
    class Partly(Deep):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(3, 3)
            self.layers[0].weight.requires_grad_(False)
            self.layers[2].requires_grad_(False)

    check_against_untouched(Partly(), batches(128, 24))


def test_inputs_that_require_gradients() -> None:
    module = Deep()
    x = torch.randn(128, 24)
    optimized = tightly_optimized(copy.deepcopy(module), (x.clone().requires_grad_(),))
    check_input_gradient(copy.deepcopy(module), optimized, x)


@pytest.fixture(params=[1, 2])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """On their number bits and workspaces may depend; tests side by side have few each."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
def test_channels_last() -> None:
    class Convs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for conv in self.convs:
                x = F.silu(conv(x))
            return x.square().mean()

    module = Convs().to(memory_format=torch.channels_last)
    inputs = [(x.to(memory_format=torch.channels_last),) for (x,) in batches(8, 8, 32, 32)]
    check_against_untouched(module, inputs, reference="aot")


def test_complex_numbers() -> None:
    class Spectral(Deep):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                z = torch.fft.rfft(layer(x))
                x = torch.fft.irfft(z * torch.polar(z.abs() * 0.1, z.angle()), n=x.shape[-1])
            return x.square().mean()

    check_against_untouched(Spectral(), batches(64, 24), reference="aot")


def test_scaled_dot_product_attention_with_dropout() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projections = nn.ModuleList(nn.Linear(16, 48) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for projection in self.projections:
                q, k, v = projection(x).unflatten(-1, (2, 24)).transpose(1, 2).chunk(3, -1)
                y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
                x = x + y.transpose(1, 2).flatten(2)
            return x.square().mean()

    check_against_untouched(Attention(), batches(2, 24, 16))


def test_several_forwards_before_their_backwards() -> None:
    module = Deep()
    inputs = batches(128, 24, count=2)
    results = []
    for make in (copy.deepcopy, lambda m: tightly_optimized(copy.deepcopy(m), inputs[0])):
        call = make(module)
        torch.manual_seed(2)
        losses = [call(*batch) for batch in inputs]
        for loss in reversed(losses):
            loss.backward()
        results.append([p.grad for p in call.parameters()] + [torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_gradient_accumulation_and_retain_graph() -> None:
    module = Deep()
    inputs = batches(128, 24)
    results = []
    for make in (copy.deepcopy, lambda m: tightly_optimized(copy.deepcopy(m), inputs[0])):
        call = make(module)
        torch.manual_seed(2)
        for batch in inputs:
            loss = call(*batch)
            loss.backward(retain_graph=True)
            loss.backward()
        results.append([p.grad for p in call.parameters()] + [torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_torch_autograd_grad_of_some_parameters() -> None:
    module = Deep()
    x = torch.randn(256, 24)
    results = []
    for make in (copy.deepcopy, lambda m: tightly_optimized(copy.deepcopy(m), (x,))):
        call = make(module)
        torch.manual_seed(2)
        weights = [layer.weight for layer in call.layers][:2]
        results.append(torch.autograd.grad(call(x), weights))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_function_of_the_whole_loss() -> None:
    module = Deep()
    twin = copy.deepcopy(module)
    inputs = batches(128, 24)

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        return (module.body(x) - x).abs().mean()

    optimized = tightly_optimized(loss_of, inputs[0])
    found = run_steps(module, optimized, inputs)
    expected = run_steps(twin, lambda x: (twin.body(x) - x).abs().mean(), inputs)
    assert_same(expected, found)
    assert recomputations(optimized) > 0


def test_every_shape_gets_its_own_plan() -> None:
    module = Deep(depth=2)
    twin = copy.deepcopy(module)
    # A fraction, as one budget for all shapes.
    optimized = fxremat.optimize(module, budget=0.8, solver="greedy")
    inputs = [(torch.randn(n, 24),) for n in (64, 80, 96, 112, 64, 128, 144, 160, 176, 192, 208)]
    assert_same(run_steps(twin, twin, inputs), run_steps(module, optimized, inputs))
    from fxremat.frontend.compiled import compiled_of

    assert len(compiled_of(optimized).backend.history.graphs) == 10


def test_symbolic_sizes_are_specialised_under_torch_compile() -> None:
    module = Deep()
    twin = copy.deepcopy(module)
    # A fraction, as above.
    compiled = torch.compile(module, backend="fxremat", options={"budget": 0.8}, dynamic=True)
    inputs = [(torch.randn(n, 24),) for n in (64, 80, 96)]
    assert_same(run_steps(twin, twin, inputs), run_steps(module, compiled, inputs))


def test_eval_and_no_grad_run_as_the_model_does() -> None:
    module = Deep()
    x = torch.randn(256, 24)
    optimized = tightly_optimized(module, (x,))
    with torch.no_grad():
        torch.manual_seed(4)
        expected = module(x)
        torch.manual_seed(4)
        assert torch.equal(optimized(x), expected)
    optimized.eval()
    assert not module.training
    with torch.no_grad():
        assert torch.equal(optimized(x), module(x))
    optimized.train()
    twin = copy.deepcopy(module)
    assert_same(run_steps(twin, twin, [(x,)]), run_steps(module, optimized, [(x,)]))


def test_differentiated_inputs_of_changing_shapes() -> None:
    """Dynamo makes a size symbolic once it has changed; every shape gets a plan of its own."""

    def step(x: torch.Tensor) -> torch.Tensor:
        return F.dropout(F.gelu(x.sin() * 2), 0.3).square().sum()

    options = {"budget": 1.0}
    compiled = torch.compile(step, backend="fxremat", fullgraph=True, options=options)
    for rows in (8, 12, 16):
        check_input_gradient(step, compiled, torch.randn(rows, 96))


def test_inputs_that_share_memory() -> None:
    net = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32))

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(net(a.t().t()), net(b))

    def step(function: Any) -> list[torch.Tensor]:
        net.zero_grad()
        function(pair[0], pair[1]).backward()
        return [p.grad.clone() for p in net.parameters()]

    pair = torch.randn(2, 128, 32)
    expected = step(loss)
    budget = tight_budget(loss, (*pair,))
    optimized = fxremat.optimize(loss, budget=budget)
    found = step(optimized)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    step(optimized)
    net.zero_grad()
    peak = fxremat.measure_peak(lambda: optimized(pair[0], pair[1]).backward()).peak_bytes
    assert peak <= budget


def test_parameters_that_share_memory() -> None:
    flat = torch.randn(2, 16, 16)
    first, second = nn.Parameter(flat[0]), nn.Parameter(flat[1])

    def loss(x: torch.Tensor) -> torch.Tensor:
        return F.gelu(F.gelu(x @ first) @ second.t()).square().mean()

    def step(function: Any) -> list[torch.Tensor | None]:
        first.grad = second.grad = None
        function(x).backward()
        return [first.grad, second.grad]

    x = torch.randn(64, 16)
    expected = step(loss)
    found = step(fxremat.optimize(loss, budget=1.0))
    assert all(
        a is not None and b is not None and torch.equal(a, b)
        for a, b in zip(expected, found, strict=True)
    )


class Siamese(nn.Module):
    """One BatchNorm, called twice in a step: the second call reads the first one's statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.features(x) - self.features(x + 1)).square().mean()


class Instances(nn.Module):
    """InstanceNorm that tracks running statistics, which it reads through `repeat`."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(
            nn.InstanceNorm2d(8, affine=True, track_running_stats=True) for _ in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.repeat(1, 8, 1, 1)[:, :8]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        return x.square().mean()


@pytest.mark.parametrize("model", [Siamese, Instances])
def test_norms_with_statistics_that_are_read_again(model: type[nn.Module]) -> None:
    optimized = check_against_untouched(model(), batches(4, 3, 20, 20))
    x = batches(4, 3, 20, 20)[0][0]
    optimized.zero_grad(set_to_none=True)
    peak = fxremat.measure_peak(lambda: optimized(x).backward()).peak_bytes
    assert peak <= plan_of(optimized).budget_bytes


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_losses_that_are_kept_for_backward(weight: float) -> None:
    """Their kernels take a workspace as large as their input, in forward and nowhere else."""
    net = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32))

    def loss(x: torch.Tensor) -> torch.Tensor:
        y = net(x)
        return F.mse_loss(y, y.detach() * weight).square() * F.smooth_l1_loss(y, x)

    x = torch.randn(64, 32)
    loss(x).backward()
    expected = [p.grad for p in net.parameters()]
    net.zero_grad()
    fxremat.optimize(loss, budget=1.0)(x).backward()
    for a, b in zip(expected, net.parameters(), strict=True):
        assert torch.equal(a, b.grad)
