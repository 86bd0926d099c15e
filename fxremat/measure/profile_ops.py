"""Run each distinct op of a graph once by itself: its workspace in bytes, its time in seconds.

Ops run on tensors of their own, of the shapes, strides and types in the graph; no parameter,
buffer or generator of the user's is touched. Ops with the same signature are run once, and the
results are kept in the `OpProfiles` that the caller holds.

Only torch's own ops and ours are run, and of them none that could harm the process (`measurable`).
Whatever goes wrong with a measurement, the op is left out of the results and compilation goes on.
"""

from __future__ import annotations

import math
import operator
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.kernel import Kernel
from fxremat.measure.kept import keep, recall
from fxremat.measure.marks import mark, split_at_marks
from fxremat.measure.profiles import Layout, OpProfile, OpProfiles
from fxremat.memory_model import storage_bytes
from fxremat.nodes import (
    BOUNDED,
    argument_by_storage,
    argument_of,
    attribute,
    inner_graphs,
    input_tensors,
    is_effect,
    is_op,
    map_nodes,
    op_name,
    outputs_of,
    schema_arguments,
    traced_value,
)

_Result = TypeVar("_Result")

_TIMED_SECONDS = 0.005
_TIMED_RUNS = (4, 10)
_LONG_SECONDS = 0.1  # fewer runs do for an op that takes as long

# Whose ops are run. Another library's may check what it is given, log, or call out.
_NAMESPACES = ("aten", "prims", "torch_nn", "fxremat")
# Ops that read sizes or addresses out of their data, unchecked: recurrent kernels, whose reserve
# the trace gives no size, and kernels over packed, nested, sparse or quantized tensors.
_NOT_RUN = re.compile(
    r"rnn|lstm|gru|packed_sequence|nested|jagged|sparse|csr|coo|quantized|mkldnn_reorder"
    r"|_local_scalar_dense|^item$|^from_file$|^set|^resize|^record_stream|pin_memory"
)
# Arguments that count from 1: LAPACK's pivots.
_FROM_ONE = ("pivots", "LU_pivots")
# Matrix exponentials halve a matrix until its norm is small, and take memory for each number of
# halvings among the matrices of a batch: they are measured on norms up to this.
_LARGEST_NORM = 2.0**14
# A generator is the user's. Lengths and tables of attention over sequences of many lengths mean
# nothing where they are invented.
_NOT_INVENTED = (
    "generator",
    "cum_seq_q",
    "cum_seq_k",
    "cu_seqlens_q",
    "cu_seqlens_k",
    "seqlen_k",
    "seqused_k",
    "block_table",
)


def measurable(node: fx.Node) -> bool:
    """Whether an op may be run by itself, on invented data, without harm to anything.

    That takes one of torch's own ops, or ours, without effects, that draws from no generator of
    the user's and takes no address or size out of its data unchecked; or control flow of a fixed
    number of steps over graphs of such ops.
    """
    target = node.target
    if torch_hooks.is_control_flow(target):
        return all(
            inner.target is operator.getitem or measurable(inner)
            for graph in inner_graphs(node)
            for inner in graph.graph.nodes
            if inner.op == "call_function"
        )
    if isinstance(target, Kernel):
        return target.measurable and not target.has_effect and not target.is_view
    if is_effect(node) or not may_be_run(target):
        return False
    arguments: list[Any] = torch_hooks.tree_leaves((node.args, node.kwargs))
    if any(isinstance(argument, torch.Generator) for argument in arguments):
        return False
    names = (argument.name for argument in schema_arguments(target))
    return all(argument_of(node, name) is None for name in names if name in _NOT_INVENTED)


def may_be_run(target: object) -> bool:
    """Whether an op is one of those that may be run on invented data, given harmless arguments."""
    if not is_op(target) or target.namespace not in _NAMESPACES:
        return False
    return not _NOT_RUN.search(op_name(target))


def signature(node: fx.Node) -> str:
    """What an op's time and workspace depend on: the op, its constants, its tensors' layouts.

    A layout has its storage's size and the offset in it: some kernels copy the whole storage.
    """
    layout = map_nodes((node.args, node.kwargs), _layout)
    return f"{node.target}{layout}"


def signatures(nodes: Iterable[fx.Node]) -> dict[fx.Node, str]:
    """The signatures of those nodes that are measurable."""
    return {node: signature(node) for node in nodes if measurable(node)}


def profile_ops(
    keys: Mapping[fx.Node, str], device: torch.device, known: OpProfiles, *, timing_limit_s: float
) -> dict[str, OpProfile]:
    """Profiles of nodes by their `signatures`; what is not yet in `known` is run and added.

    What an earlier process measured is not run. Ops are timed as long as that takes less than
    `timing_limit_s` in all (0 for no timing, inf for each that wasn't). Ops
    that must not or can't be run by themselves (no kernel, out of memory, refusing such data) are
    left out of the result; so is what any other failure meets.
    """
    wanted = {key: node for node, key in keys.items()}
    seen = {*known.by_signature, *known.unmeasured}
    recall([key for key in wanted if key not in seen], device, known)
    seen.update(known.by_signature)
    new = {key: node for key, node in wanted.items() if key not in seen}
    if new:
        found = _memory_or_none(new, device)
        known.by_signature.update(found)
        known.unmeasured.update(key for key in new if key not in found)
    untimed = {
        key: node
        for key, node in wanted.items()
        if key in known.by_signature
        and known.by_signature[key].seconds is None
        and (key not in known.given_up or timing_limit_s == math.inf)
    }
    if untimed and timing_limit_s > 0:
        for key, seconds in _times(untimed, device, timing_limit_s).items():
            known.by_signature[key] = replace(known.by_signature[key], seconds=seconds)
        keep(known, untimed, device, were_timed=True)
    elif new:
        keep(known, new, device, were_timed=False)
    return {key: known.by_signature[key] for key in wanted if key in known.by_signature}


def _memory_or_none(nodes: Mapping[str, fx.Node], device: torch.device) -> dict[str, OpProfile]:
    """What each op allocates; nothing at all, with a warning, where measuring itself fails."""
    try:
        return _memory(nodes, device)
    except Exception as error:
        warnings.warn(
            f"the memory of {len(nodes)} operations could not be measured "
            f"({type(error).__name__}: {error}): the plan takes them to need what their traced "
            "results say and no more, so that the budget may not hold",
            stacklevel=2,
        )
        return {}


def _by_themselves(function: Callable[[], _Result], device: torch.device) -> _Result:
    """What `function` returns: its ops run on real tensors and leave no trace in generators, nor in
    a profile of the user's."""

    def run() -> _Result:
        with torch_hooks.real_ops(device), torch_hooks.forked_generators(device):
            return function()

    return torch_hooks.unprofiled(run)


def _memory(nodes: Mapping[str, fx.Node], device: torch.device) -> dict[str, OpProfile]:
    """What each op allocates: for its outputs, and beyond them while it runs."""
    outputs: list[tuple[str, _Outputs | None]] = []

    def run_all() -> None:
        for key, node in nodes.items():
            ways = _Op.ways_by_memory(node)
            if isinstance(node.target, Kernel):
                for op in ways:  # A compiled kernel may be tuned when it first runs.
                    op.outputs(_makes_new(node))
            for op in ways:
                mark(device)
                made = op.outputs(_makes_new(node))
                mark(device)
                outputs.append((key, made))

    events = _by_themselves(lambda: torch_hooks.allocation_events(run_all, device), device)
    parts = split_at_marks(events)[1::2]
    profiles: dict[str, OpProfile] = {}
    for (key, made), part in zip(outputs, parts, strict=True):
        if made is not None:
            workspace = max(0, _peak(part) - made.new_bytes)
            known = profiles.get(key)
            if known is not None:  # another way, of which the plan must allow for each
                workspace = max(workspace, known.workspace_bytes)
            profiles[key] = OpProfile(made.nbytes, workspace, made.layouts)
    return profiles


def _times(nodes: Mapping[str, fx.Node], device: torch.device, limit_s: float) -> dict[str, float]:
    """Seconds of each op, until the time for it is used up; ops that fail are left out."""
    seconds: dict[str, float] = {}
    stop = time.perf_counter() + limit_s

    def run_all() -> None:
        for key, node in nodes.items():
            taken = [op.seconds(device) for op in _Op.ways(node)]
            found = [each for each in taken if each is not None]
            if found and len(found) == len(taken):
                seconds[key] = max(found)
            if time.perf_counter() > stop:
                break

    _by_themselves(run_all, device)
    return seconds


@dataclass(frozen=True)
class _Outputs:
    """The storages of one run's results, by position, and the bytes of those that are new."""

    nbytes: tuple[int | None, ...]
    layouts: tuple[Layout | None, ...]
    new_bytes: int


@dataclass(frozen=True)
class _Op:
    """An op with real arguments."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @staticmethod
    def ways(node: fx.Node) -> list[_Op]:
        """All ways that a node may run: of a cond, by either branch. Empty where it can't."""
        op = _Op.of(node)
        if op is None:
            return []
        if not torch_hooks.is_cond(op.target):
            return [op]
        _, *others = op.args
        return [replace(op, args=(branch, *others)) for branch in (True, False)]

    @staticmethod
    def ways_by_memory(node: fx.Node) -> list[_Op]:
        """Those, and with masks of ones, too: some kernels first pick what a mask has ones for."""
        ways = _Op.ways(node)
        has_masks = any(tensor.dtype is torch.bool for tensor in input_tensors(node))
        masked = _Op.of(node) if has_masks else None
        if masked is None:
            return ways
        for mask in _masks((masked.args, masked.kwargs)):
            mask.fill_(True)
        return [*ways, masked]

    @staticmethod
    def of(node: fx.Node) -> _Op | None:
        try:
            args, kwargs = torch_hooks.tree_map(_real, (node.args, node.kwargs))
            for schema, value in zip(schema_arguments(node.target), args, strict=False):
                if schema.name in _FROM_ONE:
                    value.fill_(1)
            if op_name(node.target) in torch_hooks.READ_SEEDS_ON_CPU:
                args = tuple(
                    value.cpu() if schema.name in torch_hooks.SEEDS else value
                    for schema, value in zip(schema_arguments(node.target), args, strict=False)
                )
            if op_name(node.target) == "linalg_matrix_exp":
                _spread(args[0])
            if any(BOUNDED in each.meta for each in (node, *node.all_input_nodes)):
                _pick_all(node, (args, kwargs))
        except Exception:  # no such tensor can be made: out of memory, a type without zeros
            return None
        return _Op(cast("Callable[..., Any]", node.target), args, kwargs)

    def outputs(self, makes_new: Sequence[bool]) -> _Outputs | None:
        """What one run returns; None where it can't be run on such arguments.

        A kernel may raise anything: it was given data that it was never meant to see.
        """
        try:
            results = self.target(*self.args, **self.kwargs)
            nbytes = storage_bytes(results)
            return _Outputs(
                nbytes,
                _layouts(results, makes_new),
                sum(n or 0 for n, new in zip(nbytes, makes_new, strict=True) if new),
            )
        except Exception:
            return None

    def seconds(self, device: torch.device) -> float | None:
        """Least time of a run, the device's queue drained before and after; None if it fails."""
        times: list[float] = []
        least, most = _TIMED_RUNS
        try:
            while (len(times) < least and sum(times) < _LONG_SECONDS) or (
                len(times) < most and sum(times) < _TIMED_SECONDS
            ):
                _synchronize(device)
                start = time.perf_counter()
                self.target(*self.args, **self.kwargs)
                _synchronize(device)
                times.append(time.perf_counter() - start)
        except Exception:
            return None
        return min(times)


def _spread(matrices: torch.Tensor) -> None:
    """Give the matrices of a batch many different norms, none of them small."""
    flat = matrices.new_empty(0).set_(matrices.untyped_storage())
    steps = torch.linspace(3, math.log2(_LARGEST_NORM), len(flat), device=flat.device)
    flat.mul_(2**steps)


def _masks(arguments: Any) -> list[torch.Tensor]:
    leaves = torch_hooks.tree_leaves(arguments)
    return [x for x in leaves if isinstance(x, torch.Tensor) and x.dtype is torch.bool]


def _pick_all(node: fx.Node, arguments: Any) -> None:
    """Give masks ones and, where data say how large the result is, tensors distinct numbers.

    What is picked of them is then all, and the result as large as it was traced: `x[mask]`,
    `nonzero`, `unique`.
    """
    for mask in _masks(arguments):
        mask.fill_(True)
    if not torch_hooks.makes_sizes(node):
        return
    for value in torch_hooks.tree_leaves(arguments):
        if not isinstance(value, torch.Tensor) or value.dtype is torch.bool:
            continue
        if op_name(node.target) == "repeat_interleave":
            value.fill_(1)  # How often: distinct numbers would ask for ever more.
        elif all(step for size, step in zip(value.shape, value.stride(), strict=True) if size > 1):
            numbers = torch.arange(1, value.numel() + 1, device=value.device)
            value.copy_(numbers.view(value.shape))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(events: list[int]) -> int:
    level = peak = 0
    for nbytes in events:
        level += nbytes
        peak = max(peak, level)
    return peak


def _layouts(results: Any, makes_new: Sequence[bool]) -> tuple[Layout | None, ...]:
    return tuple(
        Layout.of(t) if isinstance(t, torch.Tensor) and new else None
        for t, new in zip(outputs_of(results), makes_new, strict=True)
    )


def _makes_new(node: fx.Node) -> tuple[bool, ...]:
    """Which outputs of an op are new memory, the first of each storage (views make none)."""
    seen = set(argument_by_storage(node))
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
    if value is None and arg.op == "get_attr":
        return _code(attribute(arg))
    if not isinstance(value, torch.Tensor):
        return str(value)
    layout = f"{value.dtype}{tuple(value.shape)}{tuple(value.stride())}{value.device.type}"
    extent, storage, offset = _elements(value)
    if (storage, offset) != (extent, 0):
        layout += f"@{offset}/{storage}"
    return f"{layout}{'*' if value.is_conj() else ''}{'-' if value.is_neg() else ''}"


def _code(held: Any) -> str:
    """What a graph does, with the graphs in it."""
    if not isinstance(held, fx.GraphModule):
        return type(held).__name__
    return "".join(m.code for m in held.modules() if isinstance(m, fx.GraphModule))


def _elements(value: torch.Tensor) -> tuple[int, int, int]:
    """Elements from a tensor's first to its last, in its storage, and before its first."""
    extent = 1 + sum(
        (size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True)
    )
    if value.numel() == 0:
        extent = 0
    offset = int(value.storage_offset())
    storage = int(value.untyped_storage().nbytes()) // value.itemsize
    return int(extent), max(int(offset + extent), storage), offset


def _real(arg: Any) -> Any:
    """A real tensor in place of a graph node: numbers in (0, 1), and 0 for indices.

    It lies in a storage as large as the node's, of which only its own extent is filled.
    """
    if not isinstance(arg, fx.Node):
        return arg
    value = traced_value(arg)
    if value is None and arg.op == "get_attr" and isinstance(attribute(arg), fx.GraphModule):
        return attribute(arg)
    if torch_hooks.is_symbolic(value):
        return torch_hooks.number_now(value)
    if isinstance(value, (bool, int, float)):
        return value  # the largest that it can be
    if not isinstance(value, torch.Tensor):
        raise NotImplementedError
    extent, storage, offset = _elements(value)
    whole = torch.empty(storage, dtype=value.dtype, device=value.device)
    flat = whole[offset : offset + extent]
    if value.dtype.is_floating_point or value.dtype.is_complex:
        tile = torch.linspace(0.01, 0.99, 509, device=value.device).to(value.dtype)
        tiled = extent // 509 * 509
        flat[:tiled].view(-1, 509).copy_(tile)
        flat[tiled:].copy_(tile[: extent - tiled])
    else:
        flat.zero_()
    made = whole.as_strided(value.shape, value.stride(), offset)
    # Kernels copy what is only marked as conjugated or negated.
    made = made.conj() if value.is_conj() else made
    return torch_hooks.negated_view(made) if value.is_neg() else made
