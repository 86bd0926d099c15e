"""Run each distinct op of a graph once by itself: its workspace in bytes, its time in seconds.

Ops run on tensors of their own, of the shapes, strides and types in the graph; no parameter,
buffer or generator of the user's is touched. Ops with the same signature are run once, and the
results are kept in the `OpProfiles` that the caller holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from fxremat import torch_hooks
from fxremat.capture import allocated_bytes
from fxremat.measure import allocation_events
from fxremat.nodes import input_tensors, is_op, outputs_of, traced_value

# Two allocations of odd sizes in a row mark the begin and the end of an op in the stream of events.
_MARK = (1_000_003, 1_000_033)
_TIMED_SECONDS = 0.005
_TIMED_RUNS = (4, 10)


@dataclass(frozen=True)
class OpProfile:
    """What one run of an op took.

    `output_bytes` are the sizes of its outputs' storages, by position (None for no tensor): some
    kernels leave a result in a larger block than its shape says. `workspace_bytes` is what the op
    allocates beyond them while it runs. `seconds` is None where it was not timed.
    """

    output_bytes: tuple[int | None, ...]
    workspace_bytes: int
    seconds: float | None = None


@dataclass
class OpProfiles:
    """Profiles by op signature, filled as graphs are compiled."""

    by_signature: dict[str, OpProfile] = field(default_factory=dict[str, OpProfile])


def signature(node: fx.Node) -> str:
    """What an op's time and workspace depend on: the op, its constants, its tensors' layouts."""
    layout = pytree.tree_map(_layout, (node.args, node.kwargs))
    return f"{node.target}{layout}"


def profile_ops(
    nodes: Iterable[fx.Node], device: torch.device, known: OpProfiles, *, timing_limit_s: float
) -> dict[str, OpProfile]:
    """Profiles of the given nodes by signature; what is not yet in `known` is run and added.

    Ops are timed as long as that takes less than `timing_limit_s` in all (0 for no timing). Ops
    that can't be run by themselves (no kernel, out of memory) are left out of the result.
    """
    wanted = {signature(node): node for node in nodes}
    new = {key: node for key, node in wanted.items() if key not in known.by_signature}
    if new:
        known.by_signature.update(_memory(new, device))
    untimed = {
        key: node
        for key, node in wanted.items()
        if key in known.by_signature and known.by_signature[key].seconds is None
    }
    if untimed and timing_limit_s > 0:
        for key, seconds in _times(untimed, device, timing_limit_s).items():
            known.by_signature[key] = replace(known.by_signature[key], seconds=seconds)
    return {key: known.by_signature[key] for key in wanted if key in known.by_signature}


def _by_themselves(device: torch.device) -> ExitStack:
    """A context in which ops run on real tensors and leave no trace in generators."""
    stack = ExitStack()
    stack.enter_context(torch_hooks.real_ops(device))
    stack.enter_context(torch_hooks.forked_generators(device))
    return stack


def _memory(nodes: Mapping[str, fx.Node], device: torch.device) -> dict[str, OpProfile]:
    """What each op allocates: for its outputs, and beyond them while it runs."""
    outputs: list[tuple[str, tuple[int | None, ...]]] = []

    def run_all() -> None:
        for key, node in nodes.items():
            op = _Op.of(node)
            if op is None:
                continue
            _mark(device)
            results = op.run()
            made = None if results is None else _storage_bytes(results, device)
            del results
            _mark(device)
            outputs.append(("", ()) if made is None else (key, made))

    with _by_themselves(device):
        parts = _between_marks(allocation_events(run_all, device))
    profiles: dict[str, OpProfile] = {}
    for (key, made), part in zip(outputs, parts, strict=True):
        if key:
            new = sum(
                nbytes or 0
                for nbytes, is_new in zip(made, _makes_new(nodes[key]), strict=True)
                if is_new
            )
            profiles[key] = OpProfile(made, max(0, _peak(part) - new))
    return profiles


def _times(nodes: Mapping[str, fx.Node], device: torch.device, limit_s: float) -> dict[str, float]:
    """Seconds of each op, until the time for it is used up."""
    seconds: dict[str, float] = {}
    stop = time.perf_counter() + limit_s
    with _by_themselves(device):
        for key, node in nodes.items():
            op = _Op.of(node)
            if op is not None:
                seconds[key] = op.seconds(device)
            if time.perf_counter() > stop:
                break
    return seconds


@dataclass(frozen=True)
class _Op:
    """An op with real arguments."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @staticmethod
    def of(node: fx.Node) -> _Op | None:
        if not is_op(node.target):
            return None
        try:
            args, kwargs = pytree.tree_map(_real, (node.args, node.kwargs))
        except (RuntimeError, NotImplementedError):
            return None
        return _Op(node.target, args, kwargs)

    def run(self) -> Any:
        """The op's result; None where it can't be run on such arguments."""
        try:
            return self.target(*self.args, **self.kwargs)
        except (RuntimeError, NotImplementedError, IndexError, ValueError):
            return None

    def seconds(self, device: torch.device) -> float:
        """Least time of a run, the device's queue drained before and after."""
        times: list[float] = []
        least, most = _TIMED_RUNS
        while len(times) < least or (sum(times) < _TIMED_SECONDS and len(times) < most):
            _synchronize(device)
            start = time.perf_counter()
            self.target(*self.args, **self.kwargs)
            _synchronize(device)
            times.append(time.perf_counter() - start)
        return min(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _mark(device: torch.device) -> None:
    for nbytes in _MARK:
        torch.empty(nbytes, dtype=torch.uint8, device=device)


def _between_marks(events: list[int]) -> list[list[int]]:
    """The events of each op: those between its two marks."""
    parts: list[list[int]] = [[]]
    position = 0
    while position < len(events):
        if _is_mark(events[position : position + 4]):
            parts.append([])
            position += 4
        else:
            parts[-1].append(events[position])
            position += 1
    return parts[1::2]


def _is_mark(events: list[int]) -> bool:
    if len(events) < 4:
        return False
    first, first_freed, second, second_freed = events
    sizes = tuple(-(-n // 512) * 512 for n in _MARK) if first not in _MARK else _MARK
    return (first, second) == sizes and (first_freed, second_freed) == (-first, -second)


def _peak(events: list[int]) -> int:
    level = peak = 0
    for nbytes in events:
        level += nbytes
        peak = max(peak, level)
    return peak


def _storage_bytes(results: Any, device: torch.device) -> tuple[int | None, ...]:
    return tuple(
        allocated_bytes(t.untyped_storage().nbytes(), device)
        if isinstance(t, torch.Tensor)
        else None
        for t in outputs_of(results)
    )


def _makes_new(node: fx.Node) -> tuple[bool, ...]:
    """Which outputs of an op are new memory, the first of each storage (views make none)."""
    seen = {torch_hooks.storage_key(tensor) for tensor in input_tensors(node)}
    new: list[bool] = []
    for tensor in outputs_of(traced_value(node)):
        key = torch_hooks.storage_key(tensor) if isinstance(tensor, torch.Tensor) else None
        new.append(key is not None and key not in seen)
        seen.add(-1 if key is None else key)
    return tuple(new)


def _layout(arg: Any) -> Any:
    if not isinstance(arg, fx.Node):
        return arg
    value = traced_value(arg)
    if not isinstance(value, torch.Tensor):
        return str(value)
    return f"{value.dtype}{tuple(value.shape)}{tuple(value.stride())}{value.device.type}"


def _real(arg: Any) -> Any:
    """A real tensor in place of a graph node: numbers in (0, 1), and 0 for indices."""
    if not isinstance(arg, fx.Node):
        return arg
    value = traced_value(arg)
    if not isinstance(value, torch.Tensor):
        raise NotImplementedError
    extent = 1 + sum(
        (size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True)
    )
    if value.numel() == 0:
        extent = 0
    if value.dtype.is_floating_point or value.dtype.is_complex:
        flat = torch.empty(extent, dtype=value.dtype, device=value.device)
        tile = torch.linspace(0.01, 0.99, 509, device=value.device).to(value.dtype)
        whole = extent // 509 * 509
        flat[:whole].view(-1, 509).copy_(tile)
        flat[whole:].copy_(tile[: extent - whole])
    else:
        flat = torch.zeros(extent, dtype=value.dtype, device=value.device)
    return flat.as_strided(value.shape, value.stride())
