"""Steps in Inductor's kernels under a plan, held against the same kernels with nothing repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._inductor.config as inductor_config
from torch import Tensor, nn

import fxremat
from fxremat import inductor_hooks, torch_hooks
from fxremat.frontend.compiled import compiled_of
from fxremat.graph import Form
from fxremat.inductor import compile as inductor_compile
from fxremat.inductor import executor as inductor_executor
from tests.numerics.steps import assert_same, run_steps

WIDTH, ROWS = 32, 128
REPLAY = Form.REPLAY_RNG


class Layers(nn.Module):
    """A multi-layer perceptron with dropout; returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(0.2)]
        self.net = nn.Sequential(*layers, nn.Linear(WIDTH, 4))

    def forward(self, rows: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.net(rows), targets)


class Convolutions(nn.Module):
    """Convolutions with batch norms and dropout; returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(2):
            layers += [nn.Conv2d(8 if i else 3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Dropout(0.2))
        self.head = nn.Linear(8, 4)

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.net(pixels).mean((2, 3))), targets)


class Masked(nn.Module):
    """Draws in place, as stochastic depth does, and goes through complex numbers.

    What backward needs of those is a part of a buffer that its op names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, rows: Tensor, targets: Tensor) -> Tensor:
        for block in self.blocks:
            found = nn.functional.gelu(block(rows))
            found = found * torch.empty_like(found).bernoulli_(0.9)
            parts = torch.view_as_real(torch.fft.fft(found))
            rows = rows + parts[..., 0] * torch.tanh(parts[..., 1])
        return nn.functional.cross_entropy(rows, targets)


class Head(nn.Module):
    """A classifier of many classes, whose logits are most of its step; returns its loss."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, rows: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.head(rows), targets)


def rows(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(ROWS, WIDTH), torch.randint(4, (ROWS,))) for _ in range(count)]


def images() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(4, 3, 12, 12), torch.randint(4, (4,))) for _ in range(3)]


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind()


def planned(module: nn.Module, budget: int | float) -> Any:
    return fxremat.optimize(
        module, budget=budget, executor="inductor", cost="roofline", fullgraph=True
    )


def step_peak(module: nn.Module, call: Any, batch: tuple[Tensor, ...]) -> int:
    module.zero_grad(set_to_none=True)
    return fxremat.measure_peak(lambda: call(*batch).backward()).peak_bytes


@pytest.mark.parametrize(("kind", "batches"), [(Layers, rows), (Convolutions, images)])
def test_bits_and_peaks(kind: Any, batches: Any) -> None:
    """Every budget leaves what plain torch.compile leaves, and takes what its plan says."""
    plain = made(kind)
    expected = run_steps(plain, torch.compile(plain, fullgraph=True), batches())
    whole = made(kind)
    as_it_is = planned(whole, 1.0)
    assert_same(run_steps(whole, as_it_is, batches()), expected)
    baseline = fxremat.explain(as_it_is).baseline_peak_bytes
    assert step_peak(whole, as_it_is, batches()[0]) == baseline
    least = fxremat.floor(as_it_is)
    assert least < 0.8 * baseline
    for budget in (max(least, int(0.7 * baseline)), least):
        module = made(kind)
        optimized = planned(module, budget)
        assert_same(run_steps(module, optimized, batches()), expected)
        about = fxremat.explain(optimized)
        assert step_peak(module, optimized, batches()[0]) == about.planned_peak_bytes <= budget


def test_draws_of_a_generator_are_replayed() -> None:
    """Ops that draw by themselves, as attention's dropout does on CUDA, run again from the state
    that they began with, and leave the generator's."""
    with inductor_config.patch(fallback_random=True):
        plain, own = made(Layers), made(Layers)
        expected = run_steps(plain, torch.compile(plain, fullgraph=True), rows())
        optimized = planned(own, 1.0)
        optimized(*rows(1)[0]).backward()
        budget = fxremat.floor(optimized)
        again = made(Layers)
        optimized = planned(again, budget)
        assert_same(run_steps(again, optimized, rows()), expected)
        assert step_peak(again, optimized, rows()[0]) <= budget
    (graph,) = compiled_of(optimized).backend.history.graphs
    runs = [graph.plan.problem.ops[op].name for op in graph.plan.schedule.ops]
    drawn = {op.nodes[0].name for op in graph.plan.graph.operations if op.mode.form is REPLAY}
    assert any(runs.count(name) > 1 for name in drawn)


def test_draws_in_place_and_complex_numbers() -> None:
    plain, own = made(Masked), made(Masked)
    expected = run_steps(plain, torch.compile(plain, fullgraph=True), rows())
    optimized = planned(own, 0.8)
    assert_same(run_steps(own, optimized, rows()), expected)
    about = fxremat.explain(optimized)
    assert step_peak(own, optimized, rows()[0]) == about.planned_peak_bytes <= about.budget_bytes


def test_another_budget_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = rows(1)[0]
    first = planned(made(Layers), 1.0)
    first(*batch).backward()

    def compiles(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(inductor_compile, "compile_pair", compiles)
    second = planned(made(Layers), 0.7)
    second(*batch).backward()
    about = fxremat.explain(second)
    assert about.planned_peak_bytes < about.baseline_peak_bytes


def test_configuration_is_left_as_it_was() -> None:
    before = inductor_hooks.configuration()
    planned(made(Layers), 0.7)(*rows(1)[0]).backward()
    assert inductor_hooks.configuration() == before


def twins() -> tuple[nn.Module, Any, nn.Module, Any]:
    plain, own = made(Layers), made(Layers)
    return plain, torch.compile(plain, fullgraph=True), own, planned(own, 0.7)


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def test_hooks_and_accumulation() -> None:
    """Hooks of parameters are called, and gradients add up over two steps."""
    plain, plain_call, own, own_call = twins()
    found: list[list[Tensor]] = []
    for module, call in ((plain, plain_call), (own, own_call)):
        calls: list[int] = []
        first = next(module.parameters())
        first.register_hook(lambda grad: grad * 2)
        first.register_post_accumulate_grad_hook(lambda _p, calls=calls: calls.append(1))
        torch.manual_seed(3)
        for batch in rows(2):
            call(*batch).backward()
        assert len(calls) == 2
        found.append(gradients(module))
    assert all(map(torch.equal, *found))


def test_two_forwards_before_two_backwards() -> None:
    plain, plain_call, own, own_call = twins()
    found: list[list[Tensor]] = []
    for module, call in ((plain, plain_call), (own, own_call)):
        torch.manual_seed(3)
        first, second = rows(2)
        losses = [call(*first), call(*second)]
        losses[0].backward()
        losses[1].backward()
        found.append(gradients(module))
    assert all(map(torch.equal, *found))


def test_without_gradients() -> None:
    """Under no_grad and in eval it runs as the model does, and trains on afterwards."""
    _, _, own, own_call = twins()
    batch = rows(1)[0]
    own_call(*batch).backward()
    own_call.eval()
    with torch.no_grad():
        assert torch.equal(own_call(*batch), own(*batch))
    own_call.train()
    own_call(*batch).backward()


def test_as_a_torch_compile_backend() -> None:
    plain, plain_call, own, _ = twins()
    options = {"budget": 0.7, "executor": "inductor", "cost": "roofline"}
    call = torch.compile(own, backend="fxremat", options=options)
    assert_same(run_steps(own, call, rows()), run_steps(plain, plain_call, rows()))


def test_further_shapes_are_planned_at_once() -> None:
    """Kernels of other sizes are the same operations, by their names."""
    plain, own = made(Layers), made(Layers)
    torch.manual_seed(1)
    batches = [(torch.randn(n, WIDTH), torch.randint(4, (n,))) for n in (128, 192)]
    optimized = planned(own, 0.7)
    found = run_steps(own, optimized, batches)
    assert_same(found, run_steps(plain, torch.compile(plain, dynamic=False), batches))
    origins = [shape.origin for shape in fxremat.explain(optimized).shapes]
    assert sorted(origins) == ["quick", "searched"]
    assert step_peak(own, optimized, batches[1]) <= fxremat.explain(optimized).budget_bytes


class Broken(nn.Module):
    """Two graphs, of which the first is much like the second."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(0.2)]
        self.first = nn.Sequential(*layers, nn.Linear(WIDTH, WIDTH))
        self.second = Layers()

    def forward(self, rows: Tensor, targets: Tensor) -> Tensor:
        between = self.first(rows)
        torch._dynamo.graph_break()
        return self.second(between, targets)


def test_a_step_of_several_graphs() -> None:
    """Recorded, then planned together: bits of torch.compile, and the step's peak."""
    plain, own = made(Broken), made(Broken)
    options: dict[str, Any] = {"executor": "inductor", "cost": "roofline"}
    optimized = fxremat.optimize(own, budget=0.85, **options)
    expected = run_steps(plain, torch.compile(plain), rows(5))
    assert_same(run_steps(own, optimized, rows(5)), expected)
    about = fxremat.explain_step(optimized)
    assert len(about.calls) == 2
    assert step_peak(own, optimized, rows(1)[0]) <= about.budget_bytes < about.baseline_peak_bytes


def test_the_report_names_the_executor_and_lines_of_code() -> None:
    optimized = planned(made(Layers), 0.7)
    optimized(*rows(1)[0]).backward()
    report = str(fxremat.explain(optimized))
    assert "inductor" in report
    assert "test_executor.py" in report


def test_auto_falls_back_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Kernels where they can be planned, else op by op; asked for by name they are refused."""
    batch = rows(1)[0]

    def auto() -> Any:
        found = fxremat.optimize(made(Layers), budget=0.9, executor="auto", cost="roofline")
        found(*batch).backward()
        return found

    assert fxremat.explain(auto()).executor == "inductor"
    monkeypatch.setattr(inductor_executor, "missing_compiler", lambda _device: "a C++ compiler")
    with caplog.at_level("WARNING", "fxremat"):
        assert fxremat.explain(auto()).executor == "eager"
    assert "op by op" in caplog.text
    with pytest.raises(fxremat.UnsupportedGraphError, match=r"C\+\+ compiler"):
        planned(made(Layers), 0.9)(*batch)


def test_an_unknown_executor() -> None:
    with pytest.raises(fxremat.OptionError, match="eager, inductor, auto"):
        fxremat.optimize(made(Layers), budget=0.7, executor="triton")


def test_what_dies_is_written_over_unless_the_graph_is_kept() -> None:
    """The gradient of the logits takes their place, as under torch.compile; not before a second
    backward over the same graph."""

    def make() -> nn.Module:
        return made(lambda: Head(512))

    batch = (torch.randn(64, WIDTH), torch.randint(512, (64,)))
    plain = make()
    compiled = torch.compile(plain, fullgraph=True)
    expected = run_steps(plain, compiled, [batch] * 2)
    module = make()
    optimized = planned(module, 1.0)
    assert_same(run_steps(module, optimized, [batch] * 2), expected)
    plan = compiled_of(optimized).backend.history.graphs[0].plan
    logits = 4 * 64 * 512
    over = [old.nbytes for run in plan.program.backward for _, old in run.in_place]
    assert logits in over
    peak = step_peak(module, optimized, batch)
    assert peak == plan.baseline_peak_bytes
    assert peak <= 1.02 * step_peak(plain, compiled, batch)
    loss = optimized(*batch)
    weight = module.head.weight
    assert isinstance(weight, Tensor)
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (second,) = torch.autograd.grad(loss, weight)
    assert torch.equal(first, second)


def test_a_view_of_what_was_written_in_place_takes_no_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the written graphs, by which their peak is verified, it is the memory written over."""
    predict = inductor_executor.timeline
    seen: list[bool] = []

    def look(written: Any, memory: Any) -> Any:
        for node in [*written.forward.graph.nodes, *written.backward.graph.nodes]:
            if getattr(node.target, "is_view", False):
                (source,) = node.all_input_nodes
                keys = [torch_hooks.storage_key(each.meta["val"]) for each in (source, node)]
                assert keys[0] == keys[1]
                seen.append("in place" in str(source.target))
        return predict(written, memory)

    monkeypatch.setattr(inductor_executor, "timeline", look)
    torch.manual_seed(0)
    first, second = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
    net = planned(nn.Sequential(first, nn.Dropout(0.2), second), 1.0)
    net(torch.randn(4, ROWS, WIDTH)).square().mean().backward()
    assert any(seen)


def test_what_keep_cannot_do_is_said(caplog: pytest.LogCaptureFixture) -> None:
    weight = torch.randn(8, 8, requires_grad=True)

    def step(x: Tensor) -> Tensor:
        return fxremat.keep((x @ weight).sin()).cos().sum()

    optimized = fxremat.optimize(step, budget=1.0, executor="inductor", cost="roofline")
    with caplog.at_level("WARNING", "fxremat"):
        optimized(torch.randn(4, 8)).backward()
    assert "fxremat.keep has no effect" in caplog.text
