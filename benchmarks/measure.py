"""How every figure is measured: peak memory, time ratios, and the equality of gradients.

Peak memory is `fxremat.measure_peak`'s: the allocator's own events on the CPU, its counters on
CUDA; it looks at no graph, and `check_measurement` holds it against known allocations. It counts
above the level at entry: parameters, buffers, inputs and optimizer state are the caller's. Never
measure under a dispatch mode: a compiled graph is silently bypassed there.

Time is always a ratio to a reference that runs in the same process in alternating rounds, since
the speed of a shared machine drifts by more than the differences that matter. Of a step on one CPU
thread it is the CPU time of the process, which other work on the machine disturbs least; else it is
wall time.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.zoo import Batch
from fxremat.measure import peak as measured

Tensors = Sequence[Tensor | None]


@dataclass(frozen=True)
class Step:
    """A training step: `call(*batch)` is the loss, `module` owns the parameters it trains."""

    module: nn.Module
    call: Callable[..., Tensor]

    def clear(self) -> None:
        """Drop the gradients, so that the step has to allocate them."""
        for parameter in self.module.parameters():
            parameter.grad = None

    def run(self, batch: Batch) -> Tensor:
        """Forward and backward; the gradients must have been cleared."""
        loss = self.call(*batch)
        loss.backward()
        return loss.detach()


def measure_peak(fn: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes live at once while `fn` runs, above what is live at entry."""
    return measured.measure_peak(fn, device=device).peak_bytes


def step_peak(step: Step, batch: Batch, device: str = "cpu") -> int:
    """The peak of one step with its gradients cleared; the step must have been warmed up."""
    step.clear()
    peak = measure_peak(lambda: step.run(batch), device)
    step.clear()
    return peak


def step_timeline(step: Step, batch: Batch) -> tuple[int, ...]:
    """Live bytes above entry after every allocation and free of one step, on the CPU."""
    step.clear()
    levels = measured.measure_peak(lambda: step.run(batch)).timeline_bytes
    step.clear()
    return levels


def saved_bytes(step: Step, batch: Batch, device: str = "cpu") -> int:
    """What a forward leaves allocated for its backward, the loss included."""
    held: list[Tensor] = []
    step.clear()
    left = measured.measure_peak(lambda: held.append(step.call(*batch)), device=device).end_bytes
    held.clear()
    return left


def resident_bytes(module: nn.Module) -> int:
    """Bytes of the distinct storages of parameters and buffers: there before and after a step."""
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in [*module.parameters(), *module.buffers()]
    }
    return sum(storages.values())


@dataclass(frozen=True)
class Ratio:
    """Times of `step` against a reference: the median ratio and the middle half's ends.

    `clock` is `cpu` where it is the process's CPU time, `wall` otherwise.
    """

    median: float
    low: float
    high: float
    step_s: float
    reference_s: float
    rounds: int
    clock: str


Clock = Callable[[], float]


def clock_of(device: str) -> Clock:
    """The process's time on a CPU; on a device the wall's, once all that was launched has run."""
    if device == "cpu":
        return time.process_time

    def synchronized() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronized


def time_ratio(
    reference: Step,
    step: Step,
    batches: Callable[[int], Batch],
    rounds: int = 10,
    device: str = "cpu",
    limit_s: float = float("inf"),
    clock: Clock | None = None,
) -> Ratio:
    """Median of the ratios of alternating rounds; the order within a round alternates too.

    By `clock`, in seconds: the process's CPU time on one CPU thread, the wall's otherwise.

    `rounds` is even, so that each order comes as often as the other: what the second of a pair
    gains or loses by its place cancels. Both must have been warmed up. Stops early once `limit_s`
    is spent, after four rounds at least.
    """
    if rounds % 2:
        raise ValueError(f"{rounds} rounds: an even number is needed")
    wall = clock or time.perf_counter
    clock = clock or (time.process_time if _on_one_thread(device) else wall)
    pairs: list[tuple[float, float]] = []
    started = wall()
    for i in range(rounds):
        batch = batches(i)
        if i % 2 == 0:
            first = _time_step(reference, batch, device, clock)
            pairs.append((first, _time_step(step, batch, device, clock)))
        else:
            first = _time_step(step, batch, device, clock)
            pairs.append((_time_step(reference, batch, device, clock), first))
        if i >= 3 and i % 2 and wall() - started > limit_s:
            break
    ratios = sorted(mine / theirs for theirs, mine in pairs)
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(
        median=statistics.median(ratios),
        low=quartiles[0],
        high=quartiles[2],
        step_s=statistics.median(mine for _, mine in pairs),
        reference_s=statistics.median(theirs for theirs, _ in pairs),
        rounds=len(pairs),
        clock="cpu" if _on_one_thread(device) else "wall",
    )


def _time_step(step: Step, batch: Batch, device: str, clock: Clock) -> float:
    step.clear()
    _synchronize(device)
    start = clock()
    step.run(batch)
    _synchronize(device)
    return clock() - start


def _on_one_thread(device: str) -> bool:
    return torch.device(device).type == "cpu" and torch.get_num_threads() == 1


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Comparison:
    """How two models' steps differ. `relative_error` is the largest of the steps' gradient errors,
    each the norm of the difference over the norm of the reference.
    """

    steps: int
    loss_equal: bool
    gradients_equal: bool
    buffers_equal: bool
    rng_equal: bool
    relative_error: float
    first_difference: str | None

    @property
    def equal(self) -> bool:
        """Everything is bit for bit the same."""
        return self.loss_equal and self.gradients_equal and self.buffers_equal and self.rng_equal


def compare(
    reference: Step,
    step: Step,
    batches: Callable[[int], Batch],
    steps: int = 3,
    device: str = "cpu",
    seed: int = 0,
) -> Comparison:
    """Runs both for some steps, each step from one seed, and compares everything they leave.

    The parameters aren't updated, so that a wrong step doesn't spoil the next one's figure;
    buffers carry over. The two must own separate copies of one model; tensors are matched by their
    order, since a method that groups blocks renames them.
    """
    parameters = [name for name, _ in reference.module.named_parameters()]
    buffers = [name for name, _ in reference.module.named_buffers()]
    loss_equal = gradients_equal = buffers_equal = rng_equal = True
    worst = 0.0
    difference: str | None = None
    for i in range(steps):
        left = _outcome(reference, batches(i), seed + i, device)
        right = _outcome(step, batches(i), seed + i, device)
        loss_equal &= torch.equal(left.loss, right.loss)
        rng_equal &= all(torch.equal(a, b) for a, b in zip(left.rng, right.rng, strict=True))
        unequal = differing(buffers, left.buffers, right.buffers)
        buffers_equal &= not unequal
        wrong = differing(parameters, left.gradients, right.gradients)
        gradients_equal &= not wrong
        worst = max(worst, relative_error(left.gradients, right.gradients))
        if difference is None and (wrong or unequal):
            difference = f"step {i}: {(wrong or unequal)[0]}"
        reference.clear()
        step.clear()
    return Comparison(
        steps, loss_equal, gradients_equal, buffers_equal, rng_equal, worst, difference
    )


@dataclass(frozen=True)
class _Outcome:
    loss: Tensor
    gradients: Tensors
    buffers: Tensors
    rng: list[Tensor]


def _outcome(step: Step, batch: Batch, seed: int, device: str) -> _Outcome:
    torch.manual_seed(seed)
    step.clear()
    loss = step.run(batch)
    return _Outcome(
        loss=loss.clone(),
        gradients=[p.grad for p in step.module.parameters()],
        buffers=[b.clone() for b in step.module.buffers()],
        rng=rng_state(device),
    )


def rng_state(device: str) -> list[Tensor]:
    """The random streams a step on this device draws from."""
    states = [torch.get_rng_state()]
    if torch.device(device).type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def differing(names: Sequence[str], left: Tensors, right: Tensors) -> list[str]:
    """The names of the tensors that aren't bit for bit the same."""
    return [n for n, a, b in zip(names, left, right, strict=True) if not same(a, b)]


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Bit for bit equal; equal NaNs count as equal."""
    if a is None or b is None:
        return a is b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(_bits(a), _bits(b))


def _bits(t: Tensor) -> Tensor:
    t = (t if t.layout is torch.strided else t.to_dense()).resolve_conj().resolve_neg()
    if t.is_complex():
        t = torch.view_as_real(t)
    if not t.is_floating_point():
        return t
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return t.contiguous().view(integers[t.element_size()])


def relative_error(reference: Tensors, other: Tensors) -> float:
    """The norm of the difference of two sets of gradients over the norm of the first.

    A missing gradient counts as zero. Infinite where one of them isn't finite.
    """
    error = norm = 0.0
    for gradient, mine in zip(reference, other, strict=True):
        if gradient is None:
            error += 0.0 if mine is None else mine.double().square().sum().item()
            continue
        wide = gradient.double()
        norm += wide.square().sum().item()
        gap = wide if mine is None else wide - mine.double()
        error += gap.square().sum().item()
    relative = (error / norm) ** 0.5 if norm > 0 else error**0.5
    return relative if math.isfinite(relative) else math.inf


def check_measurement(device: str = "cpu") -> None:
    """Raises if the peak of known allocations isn't what is measured: run it before trusting it."""
    mebi = 1 << 20

    def known() -> None:
        a = torch.empty(4 * mebi, dtype=torch.uint8, device=device)
        b = torch.empty(2 * mebi, dtype=torch.uint8, device=device)
        del a
        c = torch.empty(3 * mebi, dtype=torch.uint8, device=device)
        del b, c

    known()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()  # a cached block is handed out whole where little of it is left
    for wanted, fn in ((6 * mebi, known), (0, lambda: None)):
        measured = measure_peak(fn, device)
        if measured != wanted:
            raise RuntimeError(
                f"the measured peak of known allocations is {measured} bytes, not {wanted}"
            )


def thinned(levels: Sequence[int], count: int) -> list[int]:
    """At most `count` levels, the highest of each stretch, so that no peak is lost."""
    width = max(1, -(-len(levels) // count))
    return [max(levels[i : i + width]) for i in range(0, len(levels), width)]
