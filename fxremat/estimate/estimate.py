"""`estimate`: what a training step would take on a device, without the device and the memory."""

from __future__ import annotations

import importlib
import inspect
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx, nn

from fxremat import torch_hooks
from fxremat.errors import OptionError
from fxremat.estimate.answer import Estimate
from fxremat.estimate.attention import map_attention
from fxremat.estimate.autocast import map_autocast
from fxremat.estimate.batches import (
    CAPS,
    LARGEST,
    BatchSize,
    Line,
    Room,
    largest_batches,
    largest_of,
    line_of,
    plan_batch,
)
from fxremat.estimate.device import DeviceSpec, device_of
from fxremat.estimate.fake import Cast, batch_of, cast_to, fake_inputs, fake_module
from fxremat.estimate.front import Front, cheapest, fits, front_of, planned, plans_of
from fxremat.estimate.holders import peak_of
from fxremat.estimate.notes import notes_on
from fxremat.estimate.record import Point
from fxremat.estimate.resident import Resident, check_optimizer, resident_of
from fxremat.estimate.target import lower_for
from fxremat.estimate.trace import trace_step
from fxremat.frontend.compiled import call_arguments
from fxremat.lower.lowering import Lowering
from fxremat.nodes import op_name
from fxremat.pipeline.progress import Say, said
from fxremat.plan.budget import Budget

_POINTS_AGAIN = 8  # where one example is traced otherwise than several

_DTYPES = {
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "float32": torch.float32,
}


@dataclass(frozen=True)
class _Step:
    """A step that was traced at one batch size, for a device."""

    batch: int | None
    resident: Resident
    lowering: Lowering
    is_real: bool
    has_module: bool


def estimate(
    model: Callable[..., Any],
    inputs: object = None,
    *,
    device: str | DeviceSpec = "cpu",
    budget: int | str | float | None = None,
    batch_sizes: Sequence[int] | None = None,
    dtype: str | torch.dtype | None = None,
    optimizer: str = "adamw",
    points: int = 16,
    time_limit_s: float = 120.0,
) -> Estimate:
    """What a training step of a model takes on a device that needn't be there, and what budgets
    for it cost.

    `model` sees the step as it is to be planned, with the loss inside or not, and `inputs` are a
    tensor, a tuple of arguments or a dict by name. Without them `model` is a factory that returns
    both; it is called on the `meta` device, so that nothing is allocated, and where it takes
    `batch_size`, with that. The step is traced on fake tensors: the model may be on `meta`.

    `device` is a known one ("h100", "a100-80", "l4", ...; "cpu" is this machine) or a `DeviceSpec`.
    `budget` caps the step memory, as for `optimize`; by default it is what the device has left.
    `batch_sizes` are those to answer for, by default the largest are searched for; an empty list
    leaves them out. Inputs are scaled by their first dimension. `dtype` casts parameters, buffers
    and inputs of floating point types. `optimizer` is that of the training.

    The front has `points` plans by quick walks, with lower bounds as long as `time_limit_s` lasts.

    Raises `OptionError` and `BudgetError` for arguments, `GraphBreakError` and
    `UnsupportedGraphError` for steps that can't be planned.
    """
    spec = device_of(device)
    cast = cast_to(_dtype_of(dtype))
    check_optimizer(optimizer)
    sizes = _batch_sizes(batch_sizes)
    if isinstance(points, bool) or points < 2:
        raise OptionError(f"points is {points!r}: it must be 2 or more")
    if not time_limit_s > 0:
        raise OptionError(f"time_limit_s is {time_limit_s!r}: it must be above 0")
    asked = None if budget is None else Budget.of(budget)

    def step(batch: int | None) -> _Step:
        return _traced(model, inputs, batch, spec, cast, optimizer)

    with said("tracing the step") as say:
        started = time.perf_counter()
        first = step(None)
        say("tracing it at other batch sizes")
        line = None if sizes == [] else _line(first, step, spec)
        traced = time.perf_counter()
        problem, resident = first.lowering.problem, first.resident
        deadline = time.monotonic() + time_limit_s
        front = front_of(problem, points=points, time_limit_s=time_limit_s, say=say)
        say("looking for the largest batch")
        batches, largest = _batches(line, first, spec, front, sizes, time_limit_s / 4, say)
    most = front.plans[-1].peak_bytes
    left = spec.usable_bytes - resident.nbytes
    budget_bytes = left if asked is None else asked.to_bytes(most)
    base = problem.baseline_cost or 1.0

    def point(peak_bytes: int, extra_s: float, bound_s: float | None) -> Point:
        return Point(
            step_bytes=peak_bytes,
            all_bytes=resident.nbytes + peak_bytes,
            extra=extra_s / base,
            bound=None if bound_s is None else bound_s / base,
            fits=peak_bytes <= left,
        )

    at_budget = None
    if budget_bytes >= front.lowest.peak_bytes:
        found = cheapest(problem, budget_bytes, front.schedules)
        if fits(found):
            plan = planned(problem, found, max(deadline, time.monotonic() + 1))
            at_budget = point(plan.peak_bytes, plan.extra_seconds, plan.bound_seconds)
    return Estimate(
        device=spec,
        batch=first.batch,
        operations=len(first.lowering.graph.operations),
        dtype=_dtype_name(first.lowering),
        optimizer=optimizer,
        resident=resident,
        budget_bytes=max(0, budget_bytes),
        kernel_seconds=problem.baseline_cost,
        dispatch_seconds=spec.dispatch_s * len(first.lowering.graph.operations),
        points=tuple(point(p.peak_bytes, p.extra_seconds, p.bound_seconds) for p in front.plans),
        at_budget=at_budget,
        batches=batches,
        largest=largest,
        minimum=peak_of(first.lowering, front.lowest.schedule),
        kernels=_kernels(first.lowering, spec),
        notes=notes_on(
            first.lowering,
            spec,
            waits_for_python=spec.dispatch_s * len(first.lowering.graph.operations)
            > problem.baseline_cost,
            has_line=line is not None or sizes == [],
            is_real=first.is_real,
            has_module=first.has_module,
            at_most=_at_most(largest) if sizes is None else None,
        ),
        trace_s=traced - started,
        plan_s=time.perf_counter() - traced,
        problem=problem,
        schedules=tuple(front.schedules),
    )


def factory_at(path: str) -> Callable[..., Any]:
    """The factory that ``module:function`` names. Raises `OptionError` where there is none."""
    module_name, _, attribute = path.partition(":")
    if not attribute:
        raise OptionError(f"{path!r} names no factory: write module:function")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"there is no factory {path!r}: {error}") from error
    if not callable(found):
        raise OptionError(f"{path!r} is {found!r:.60}: name a function that makes a model")
    return found


def _traced(
    model: Callable[..., Any],
    inputs: object,
    batch: int | None,
    spec: DeviceSpec,
    cast: Cast,
    optimizer: str,
) -> _Step:
    is_real = False
    if inputs is None:
        model, inputs, batch, is_real = _made(model, batch)
    mode = torch_hooks.fake_mode()
    function = model
    module = None
    if isinstance(model, nn.Module):
        module = fake_module(model, mode, cast)
        if not is_training_anywhere(module):
            module.train()
        function = module.forward
    elif not callable(model):
        raise OptionError(
            f"model is a {type(model).__name__}: give an nn.Module or a function with its inputs, "
            "or a factory that returns both"
        )
    arguments = fake_inputs(call_arguments(inputs), mode, cast, batch)

    def rewrite(graph: fx.GraphModule) -> None:
        if spec.kind == "cuda":
            map_attention(graph)
            map_autocast(graph)

    args, kwargs = arguments
    traced = trace_step(function, args, kwargs, rewrite)
    return _Step(
        batch=batch_of(arguments),
        resident=resident_of(module, arguments, optimizer, spec.kind),
        lowering=lower_for(traced, spec),
        is_real=is_real,
        has_module=module is not None,
    )


def is_training_anywhere(module: nn.Module) -> bool:
    """Whether some part of a module is in training mode: then it is as its owner wants it."""
    return any(part.training for part in module.modules())


def _made(
    factory: Callable[..., Any], batch: int | None
) -> tuple[Callable[..., Any], object, int | None, bool]:
    """What a factory returns, the batch size that is still to be set, and if it took memory."""
    if isinstance(factory, nn.Module):
        raise OptionError("inputs are missing: give them, or a factory that returns model and both")
    if not callable(factory):
        raise OptionError(f"model is a {type(factory).__name__}: give a model or a factory")
    given: dict[str, Any] = {}
    try:
        takes_batch = "batch_size" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        takes_batch = False
    if takes_batch and batch is not None:
        given, batch = {"batch_size": batch}, None
    made: tuple[Any, Any] | None = None
    try:
        with torch.device("meta"):
            made = _pair(factory(**given))
    except OptionError:
        raise
    except Exception:
        pass
    # What needs numbers (a generator's, a file's) has its memory, and so has what a function reads:
    # that is no parameter of anything, which could be moved.
    is_real = made is None or not isinstance(made[0], nn.Module)
    model, inputs = _pair(factory(**given)) if made is None or is_real else made
    if isinstance(model, nn.Module):
        model.train()
    return model, inputs, batch, is_real


def _pair(made: object) -> tuple[Any, Any]:
    if not isinstance(made, tuple) or len(cast("tuple[Any, ...]", made)) != 2:
        raise OptionError("the factory must return a pair: a model and its inputs")
    return cast("tuple[Any, Any]", made)


def _line(first: _Step, step: Callable[[int | None], _Step], spec: DeviceSpec) -> Line | None:
    """How the step scales with the batch; None where it doesn't, or there is no batch."""
    batch = first.batch
    if batch is None:
        return None
    second = step(2 * batch)
    if second.batch != 2 * batch:
        return None
    problems = first.lowering.problem, second.lowering.problem
    line = line_of(problems[0], batch, problems[1], 2 * batch, spec.kind)
    if line is None:  # One example may be traced otherwise than several.
        third = step(4 * batch)
        line = line_of(problems[1], 2 * batch, third.lowering.problem, 4 * batch, spec.kind)
    return line


def _batches(
    line: Line | None,
    first: _Step,
    spec: DeviceSpec,
    front: Front,
    sizes: list[int] | None,
    time_limit_s: float,
    say: Say,
) -> tuple[tuple[BatchSize, ...], tuple[tuple[float, BatchSize | None], ...]]:
    """The batch sizes that were looked at, and the largest at each extra time."""
    if line is None or first.batch is None:
        return (), ()
    resident = first.resident
    room = Room(
        usable_bytes=spec.usable_bytes,
        fixed_bytes=resident.nbytes - resident.input_bytes,
        input_bytes=resident.input_bytes // first.batch,
        dispatch_s=spec.dispatch_s,
    )
    own, schedules = first.lowering.problem, front.schedules
    if line.first is not own:
        again = plans_of(line.first, points=_POINTS_AGAIN, time_limit_s=time_limit_s, say=say)
        schedules = [each.schedule for each in again]

    def plan(batch: int) -> BatchSize:
        if batch == first.batch:
            return plan_batch(own, batch, room, front.schedules)
        return plan_batch(line.at(batch), batch, room, schedules)

    if sizes is not None:
        looked_at = [plan(batch) for batch in sizes]
        return tuple(looked_at), tuple(largest_of(looked_at).items())
    largest = largest_batches(plan, CAPS)
    shown = {each.batch: each for each in largest.values() if each is not None}
    return tuple(shown[batch] for batch in sorted(shown)), tuple(largest.items())


def _at_most(largest: Sequence[tuple[float, BatchSize | None]]) -> int | None:
    """The batch size at which the search ended, where it did."""
    ended = any(each is not None and each.batch >= LARGEST for _, each in largest)
    return LARGEST if ended else None


def _batch_sizes(sizes: Sequence[int] | None) -> list[int] | None:
    if sizes is None:
        return None
    found = list(sizes)
    for size in found:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(f"a batch size is {size!r}: it must be a number of examples from 1")
    return sorted(set(found))


def _dtype_of(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        if dtype is not None and not dtype.is_floating_point:
            raise OptionError(f"dtype is {dtype}: it must be a floating point type")
        return dtype
    found = _DTYPES.get(dtype.lower())
    if found is None:
        raise OptionError(f"unknown dtype {dtype!r}: choose one of bf16, fp16, fp32")
    return found


def _dtype_name(lowering: Lowering) -> str:
    """The type of most of what forward makes, in bytes."""
    found: Counter[str] = Counter()
    for operation in lowering.graph.forward:
        for node in operation.nodes:
            for tensor in torch_hooks.tree_leaves(node.meta.get("val")):
                if isinstance(tensor, torch.Tensor) and tensor.dtype.is_floating_point:
                    found[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return found.most_common(1)[0][0] if found else "none"


def _kernels(lowering: Lowering, spec: DeviceSpec) -> tuple[tuple[str, int], ...]:
    """The attention ops of the step, which differ by device, and how often they run."""
    if spec.kind != "cuda":
        return ()
    names = [op_name(node.target) for node in lowering.graph.nodes]
    return tuple(sorted(Counter(name for name in names if "attention" in name).items()))
