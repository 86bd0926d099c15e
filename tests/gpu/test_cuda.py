"""The promises on CUDA, held against eager: bits, the random stream, and the allocator's peak.

FXREMAT_TEST_DEVICE=cpu runs the same tests on the CPU at small sizes, so that they can't rot.
Deterministic kernels are asked for; where eager still differs from itself, optimized steps may
differ from it by a few times as much, and the test records that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

# cuBLAS reads it when its first handle is made.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from torch import Tensor, nn

import fxremat
from benchmarks import zoo
from benchmarks.counters import step_peaks
from benchmarks.cuda.states import OWN_ERRORS, judged
from benchmarks.exactness import Setting, run_budget, untouched
from benchmarks.measure import Step, check_measurement, relative_error, rng_state, same
from benchmarks.zoo.case import LossModule

DEVICE = os.environ.get("FXREMAT_TEST_DEVICE") or "cuda"
ON_CUDA = DEVICE.startswith("cuda")
SIZE = "bench" if ON_CUDA else "tiny"
BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16
ALL_MODELS = (
    ("two-tower", None),
    ("gpt2-sdpa", BFLOAT16),
    ("vgg16bn", None),
    ("bert-sdpa", BFLOAT16),
    ("gpt2-eager", None),
    ("unet", None),
)
MODELS = ALL_MODELS if ON_CUDA else ALL_MODELS[:2]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="needs a CUDA device"),
]

Record = Callable[[str, object], None]
Training = Callable[[nn.Module, Callable[..., Tensor]], list[Tensor]]


@pytest.fixture(autouse=True)
def _repeatable_kernels() -> Iterator[None]:
    """Deterministic kernels where there are some, a warning where there are none."""
    torch._dynamo.reset()
    if ON_CUDA:
        torch.cuda.empty_cache()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    yield
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(before)


def needs(name: str) -> None:
    package = zoo.get(name).source.partition(" ")[0]
    if not package.startswith("benchmarks."):
        pytest.importorskip(package, exc_type=ImportError)


def test_known_allocations() -> None:
    check_measurement(DEVICE)


@pytest.mark.parametrize(("name", "autocast"), MODELS)
def test_steps_leave_what_eager_leaves(
    name: str, autocast: torch.dtype | None, record_property: Record
) -> None:
    """Loss, gradients, buffers and random state after each of three steps, and the peak."""
    needs(name)
    known = untouched(Setting(name, SIZE, device=DEVICE, autocast=autocast))
    row = run_budget(known, 0.7, clip=False)
    if row["status"] == "below the floor":
        # With some room for what the allocator leaves of its blocks.
        row = run_budget(known, row["floor_bytes"] + (8 << 20), clip=False)
    record_property("reference", row["reference"])
    record_property("eager repeats", known.eager_repeats)
    record_property("error", row["comparison"]["relative_error"])
    for key in ("budget_bytes", "planned_peak_bytes", "measured_peak_bytes"):
        record_property(key, row[key])
    record_property("requested_peak_bytes", row.get("requested_peak_bytes"))
    assert judged(row) == "good", row["comparison"]


class Convolutions(nn.Module):
    """Convolutions with batch norms and dropout, of torch alone; returns its loss."""

    def __init__(self, width: int, blocks: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(blocks):
            layers += [
                nn.Conv2d(width if i else 3, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Dropout(0.2),
            ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, 10)

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        found = self.head(self.features(pixels).mean((2, 3)))
        return nn.functional.cross_entropy(found, targets)


WIDTH, BATCH, SIDE = (64, 32, 64) if ON_CUDA else (8, 4, 16)


def convolutions(autocast: torch.dtype | None = None) -> nn.Module:
    torch.manual_seed(0)
    net = Convolutions(WIDTH).to(DEVICE)
    return LossModule(net, lambda model, *batch: model(*batch), autocast)


def images(index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(index)
    pixels = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
    return pixels.to(DEVICE), torch.randint(10, (BATCH,), generator=generator).to(DEVICE)


def optimized_within(module: nn.Module, fraction: float) -> nn.Module:
    """At that budget, or at the floor where kernels' workspaces put that above it."""
    try:
        return fxremat.optimize(module, budget=fraction, example_inputs=images(0))
    except fxremat.BudgetInfeasible as error:
        return fxremat.optimize(module, budget=error.floor_bytes)


def train(module: nn.Module, call: Callable[..., Tensor]) -> list[Tensor]:
    """Four optimizer steps from one seed: every random state, then parameters and buffers."""
    torch.manual_seed(3)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    states: list[Tensor] = []
    for i in range(4):
        optimizer.zero_grad(set_to_none=True)
        call(*images(i)).backward()
        optimizer.step()
        states += rng_state(DEVICE)
    return [*states, *(t.detach().clone() for t in [*module.parameters(), *module.buffers()])]


def train_scaled(module: nn.Module, call: Callable[..., Tensor]) -> list[Tensor]:
    """As `train`, under a scaler that begins too high: half precision overflows and skips steps."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler(torch.device(DEVICE).type, init_scale=2.0**34, growth_interval=2)
    scales: list[Tensor] = []
    for i in range(24 if ON_CUDA else 4):
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(call(*images(i))).backward()
        scaler.unscale_(optimizer)
        scales.append(nn.utils.clip_grad_norm_(module.parameters(), 1.0).detach())
        scaler.step(optimizer)
        scaler.update()
        scales.append(torch.tensor(scaler.get_scale()))
    return [*scales, *(t.detach().clone() for t in [*module.parameters(), *module.buffers()])]


def hold_against_eager(
    make: Callable[[], nn.Module], training: Training, budget: float, record: Record
) -> None:
    """A training of the optimized module leaves eager's bits.

    Or those of AOTAutograd's own graph, where that rounds differently; or, where eager's kernels
    don't repeat, what is within a few times of eager's difference from itself.
    """
    eager, again, own = make(), make(), make()
    expected, repeated = training(eager, eager), training(again, again)
    found = training(own, optimized_within(own, budget))
    repeats = all(map(same, expected, repeated))
    record("eager repeats", repeats)
    if all(map(same, expected, found)):
        record("bits", "eager's")
        return
    error = difference(expected, found)
    record("error", error)
    if not repeats:
        record("bits", "eager's kernels don't repeat")
        assert error <= OWN_ERRORS * difference(expected, repeated)
        return
    untouched_graph = make()
    backend = "aot_eager_default_partitioner"
    call = torch.compile(untouched_graph, backend=backend, fullgraph=True, dynamic=False)
    record("bits", "AOTAutograd's")
    unequal = [not same(a, b) for a, b in zip(training(untouched_graph, call), found, strict=True)]
    assert not any(unequal), f"{sum(unequal)} of {len(unequal)} tensors differ, by {error:.1e}"


def difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """Without random states and counters, and without norms that a scaler's overflow leaves."""
    kept = [t.is_floating_point() and bool(t.isfinite().all()) for t in expected]
    pairs = [
        pair for pair, keep in zip(zip(expected, found, strict=True), kept, strict=True) if keep
    ]
    return relative_error([a for a, _ in pairs], [b for _, b in pairs])


def test_training_goes_on_as_eager(record_property: Record) -> None:
    """Optimizer steps on one random stream: running statistics, parameters, random states."""
    hold_against_eager(convolutions, train, 0.7, record_property)


@pytest.mark.parametrize("precision", [BFLOAT16, FLOAT16])
def test_autocast_under_a_scaler(precision: torch.dtype, record_property: Record) -> None:
    if precision is FLOAT16 and not ON_CUDA:
        pytest.skip("half precision is for CUDA")
    hold_against_eager(lambda: convolutions(precision), train_scaled, 0.7, record_property)


class Attention(nn.Module):
    """Two layers of attention with dropout, masked or causal; returns its loss."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        x = pixels[:, 0, :, :WIDTH]
        seen = targets[:, None, None, None].expand(-1, 1, x.shape[1], x.shape[1]) < 8
        for layer in self.layers:
            heads = layer(x).unflatten(-1, (3, WIDTH // 8, 8)).movedim(2, 0)
            q, k, v = heads.transpose(2, 3).unbind()
            mask = None if self.causal else seen
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, mask, 0.1, self.causal)
            x = x + mixed.transpose(1, 2).flatten(2)
        return x.square().mean()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("precision", [None, BFLOAT16])
def test_attention_with_dropout(
    precision: torch.dtype | None, record_property: Record, *, causal: bool
) -> None:
    """By whichever kernel torch takes: those for float32 read their seeds from the CPU."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        net = Attention(causal=causal).to(DEVICE)
        return LossModule(net, lambda model, *batch: model(*batch), precision)

    hold_against_eager(make, train, 0.8, record_property)


@pytest.mark.parametrize("budget", [0.9, 0.7, 0.6] if ON_CUDA else [0.7])
def test_peak_by_both_counts(budget: float, record_property: Record) -> None:
    """What was allocated is within the budget; what was asked for never exceeds the prediction."""
    module = convolutions()
    optimized = optimized_within(module, budget)
    step = Step(module, optimized)
    for i in range(2):
        step.run(images(i))
        step.clear()
    found = step_peaks(step, images(0), DEVICE)
    about = fxremat.explain(optimized)
    record_property("budget_bytes", about.budget_bytes)
    record_property("planned_peak_bytes", about.planned_peak_bytes)
    record_property("measured_peak_bytes", found.allocated_bytes)
    record_property("requested_peak_bytes", found.requested_bytes)
    assert found.requested_bytes is None or found.requested_bytes <= about.planned_peak_bytes
    assert found.allocated_bytes <= about.budget_bytes


def test_below_the_floor_is_an_error() -> None:
    with pytest.raises(fxremat.BudgetInfeasible):
        fxremat.optimize(convolutions(), budget="1B", example_inputs=images(0))
