"""Every private or experimental torch API that fxremat stands on, and nothing else.

Supported: torch 2.11 to 2.13. `tests/fxremat/test_torch_hooks.py` fails loudly when one changes.
"""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false, reportOptionalMemberAccess=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import itertools
import logging
import operator
import os
import random
import re
import sys
import threading
import types
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, cast
from unittest import mock

import torch
import torch._dynamo
import torch._dynamo.config
import torch._dynamo.exc
from torch import fx
from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list, reset_code
from torch._C._profiler import (
    ProfilerConfig,
    ProfilerState,
    RecordScope,
    _EventType,
    _ExperimentalConfig,
)
from torch._dispatch.python import no_python_dispatcher
from torch._dynamo import convert_frame, eval_frame
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.debugging import boxed_nop
from torch._dynamo.guards import DeletedGuardManagerWrapper
from torch._dynamo.symbolic_convert import InstructionTranslatorBase, TensorifyState
from torch._dynamo.utils import get_metrics_context
from torch._functorch import partitioners
from torch._functorch._aot_autograd.descriptors import PlainAOTInput, PlainAOTOutput
from torch._guards import CompileContext, TracingContext, tracing
from torch._higher_order_ops.base_hop import BaseHOP
from torch._higher_order_ops.map import map_impl
from torch._ops import HigherOrderOperator, OpOverload
from torch._prims.rng_prims import run_and_save_rng_state, run_with_rng_state
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed import _composable_state
from torch.fx._lazy_graph_module import _make_graph_module
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.fx.experimental.sym_node import DynamicInt
from torch.fx.experimental.symbolic_shapes import (
    GuardOnDataDependentSymNode,
    PendingUnbackedSymbolNotFound,
    constrain_range,
    free_unbacked_symbols,
)
from torch.fx.graph_module import _format_import_block
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.package import sys_importer
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

__all__ = [
    "FakeTensor",
    "OpOverload",
    "PassesThroughDynamo",
    "WeakIdKeyDictionary",
    "boxed_executor",
    "compile_whole",
    "compiled_frame_id",
    "compiling_again",
    "extract_forward_and_backward",
    "fake_mode_of",
    "flop_formula",
    "graph_break_of",
    "ignore_log_calls",
    "make_aot_backend",
    "needs_gradients",
    "numbers_are_fixed",
    "profiler_is_active",
    "run_and_save_rng_state",
    "run_with_rng_state",
    "share_module_state",
    "shared_store",
    "shorten",
    "shown_cause",
    "specialize_sizes",
    "trace_whole",
    "unwrap_graph_break",
]

# Frames of torch, of this package and of the standard library's context managers.
_NOT_THE_USERS = (
    os.path.dirname(torch.__file__) + os.sep,
    os.path.dirname(__file__) + os.sep,
    contextlib.__file__,
)

# Where torch has its layers.
_LAYERS = os.path.join(os.path.dirname(torch.nn.__file__), "modules") + os.sep

# In Dynamo's messages: the frame of `_in_own_code`, and lines on bugs of PyTorch's.
_NOT_TO_THE_USER = re.compile(
    r"""^\ +File\ "[^"]*",\ line\ \d+,\ in\ fxremat_step_\d+\n(?:\ {4}.*\n)*
    |^Set\ TORCHDYNAMO_VERBOSE=1.*\n?
    |^.*[Rr]eport\ an\ issue\ to\ PyTorch.*\n?""",
    re.MULTILINE | re.VERBOSE,
)

# The name that torch 2.12 gave to its set of log functions to leave out.
_IGNORED_LOGGING = (
    "ignore_logging_functions"
    if hasattr(torch._dynamo.config, "ignore_logging_functions")
    else "ignore_logger_methods"
)

# Whether Dynamo leaves that set out where it writes its configuration.
_WRITES_NO_FUNCTIONS = _IGNORED_LOGGING in inspect.getsource(
    torch._dynamo.utils._get_dynamo_config_for_logging
)

# Whether fx can be asked for effects other than random draws.
_TELLS_RANDOM = "impure_random" in inspect.signature(fx.Node.is_impure).parameters

# Whether Dynamo can go on in all functions that surround a graph's end; 2.11 did it in few.
_RESUMES_INSIDE = (
    "allow_nested_graph_breaks"
    in inspect.signature(InstructionTranslatorBase.inline_user_function_return).parameters
)

_ALLOCATION = _EventType.Allocation

_step_numbers = itertools.count()

_Result = TypeVar("_Result")

Partitioner = Callable[..., tuple[fx.GraphModule, fx.GraphModule]]

GraphCompiler = Callable[[fx.GraphModule], Callable[[list[Any]], Any]]

CompileAgain = Callable[[Partitioner, GraphCompiler], Callable[..., Any]]
"""Compiles a graph that was traced before, by other halves."""

OnTraced = Callable[[CompileAgain], None]


class Removable(Protocol):
    """A hook that was set, and can be taken away."""

    def remove(self) -> None: ...


class PassesThroughDynamo(torch._dynamo.exc.ShortenTraceback):
    """An exception that a backend can raise and the user sees unchanged.

    Dynamo wraps what a backend raises in `BackendCompilerFailed`, except this class of its own.
    It still adds its frames to the traceback, and to the message how to report a bug to PyTorch;
    neither says anything to the user.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, first_useful_frame=None)
        self._message = str(args[0]) if args else ""

    def __str__(self) -> str:
        return self._message

    def remove_dynamo_frames(self) -> PassesThroughDynamo:
        """What Dynamo calls before it raises the error to the user."""
        return self if torch._dynamo.config.verbose else self.with_traceback(None)


def make_aot_backend(
    partitioner: Partitioner,
    compile_graph: GraphCompiler,
    on_traced: OnTraced = lambda _again: None,
) -> Callable[..., Callable[..., Any]]:
    """A Dynamo backend that traces the joint graph, splits it with `partitioner`, and compiles
    both halves. What `compile_graph` returns gets its arguments in a list that is its to empty.

    Before the partitioner is called `on_traced` is given what compiles the same graph again.
    """
    make = aot_autograd(
        fw_compiler=aot_compiler(compile_graph),
        partition_fn=partitioner,
        # Buffer updates stay inside the graph (as copy_), as they do under aot_eager.
        keep_inference_input_mutations=True,
    )

    def compile_outside_of_autocast(module: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        # As in eager, where a backward is called outside of the autocast around its forward.
        with _outside_of_autocast(), hear_of_traces(module, on_traced):
            return make(module, inputs)

    return compile_outside_of_autocast


def aot_compiler(compile_graph: GraphCompiler) -> Callable[..., Callable[[list[Any]], Any]]:
    def compiler(module: fx.GraphModule, _inputs: Sequence[Any]) -> Callable[[list[Any]], Any]:
        run = compile_graph(module)

        def boxed(arguments: list[Any]) -> Any:
            return run(arguments)

        boxed._boxed_call = True  # type: ignore[attr-defined]
        return boxed

    return compiler


def _outside_of_autocast() -> AbstractContextManager[Any]:
    return torch._functorch.config.patch(backward_pass_autocast="off")


@contextlib.contextmanager
def hear_of_traces(module: fx.GraphModule, on_traced: OnTraced) -> Generator[None, None, None]:
    """`on_traced` is called where AOTAutograd has traced a graph and is about to split it."""
    second_stage = torch._functorch.aot_autograd.aot_stage2_compile
    thread = threading.get_ident()

    def heard(state: Any, capture: Any, *others: Any) -> Any:
        if threading.get_ident() == thread:
            on_traced(_compiler_again(module, second_stage, state, capture))
        return second_stage(state, capture, *others)

    with mock.patch.object(torch._functorch.aot_autograd, "aot_stage2_compile", heard):
        yield


def _compiler_again(
    module: fx.GraphModule, second_stage: Callable[..., Any], state: Any, capture: Any
) -> CompileAgain:
    """What compiles a traced graph by other halves, from what AOTAutograd found in the trace.

    The second stage notes in its records what the halves pass on, so that each has records of its
    own. The joint graph isn't among them: the partitioner has it.
    """
    given = own_tensors(module)

    def own() -> tuple[Any, Any]:
        mine = copy.copy(state)
        mine.fw_metadata, mine.aot_config = (
            copy.copy(state.fw_metadata),
            copy.copy(state.aot_config),
        )
        inner = copy.copy(capture.maybe_subclass_meta)
        if inner is not None:
            inner.fw_metadata = copy.copy(inner.fw_metadata)
        nothing = fx.GraphModule({}, fx.Graph())
        return mine, dataclasses.replace(capture, graph_module=nothing, maybe_subclass_meta=inner)

    state, capture = own()

    def compile_again(partitioner: Partitioner, compile_graph: GraphCompiler) -> Callable[..., Any]:
        compiler = aot_compiler(compile_graph)
        with _outside_of_autocast():
            compiled, _ = second_stage(*own(), partitioner, compiler, compiler, compiler)
        return lambda *args: compiled([*given, *args])

    return compile_again


# Attention's kernels that leave dropout's seed and offset in the processor's memory on CUDA, and
# those that read them there; traces have them on the device, and read from there they end the
# process (aten/src/ATen/native/transformers/cuda, "Note [Seed and Offset Device]").
LEAVE_SEEDS_ON_CPU = ("_scaled_dot_product_efficient_attention", "_efficient_attention_forward")
SEED_OUTPUTS = (2, 3)
READ_SEEDS_ON_CPU = tuple(
    f"{name.removesuffix('_forward')}_backward" for name in LEAVE_SEEDS_ON_CPU
)
SEEDS = ("philox_seed", "philox_offset")


def boxed_executor(module: fx.GraphModule) -> Callable[[list[Any]], Any]:
    """`module` as a function of one list, which it empties as it goes."""
    return boxed_nop(module, [])


def extract_forward_and_backward(
    joint: fx.GraphModule,
    saved: Sequence[fx.Node],
    *,
    num_fwd_outputs: int,
    static_lifetime_input_indices: Sequence[int] | None,
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Split a joint graph at the given residuals, keeping the order of its nodes.

    Residuals that are Python numbers (of `torch.SymInt` and the like) go by themselves.
    """
    placeholders = [node for node in joint.graph.nodes if node.op == "placeholder"]
    primals = [node for node in placeholders if partitioners._is_primal(node)]
    static_nodes = [primals[i] for i in static_lifetime_input_indices or ()]
    forward, backward = partitioners._extract_fwd_bwd_modules(
        joint,
        [node for node in saved if not is_symbolic(node.meta.get("val"))],
        saved_sym_nodes=[node for node in saved if is_symbolic(node.meta.get("val"))],
        num_fwd_outputs=num_fwd_outputs,
        static_lifetime_input_nodes=cast("Any", dict.fromkeys(static_nodes)),
    )
    return forward, backward


def lazy_graph_module(root: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    """A graph module whose code is only generated when it is called."""
    return _make_graph_module(root, graph)


def joint_outputs(
    joint: fx.GraphModule, num_fwd_outputs: int
) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]:
    """Forward outputs, gradients, and AOT's descriptors of both."""
    return partitioners._extract_fwd_bwd_outputs(joint, num_fwd_outputs=num_fwd_outputs)


def is_primal(node: fx.Node) -> bool:
    """Whether a placeholder of a joint graph is an input of the forward part."""
    return partitioners._is_primal(node)


def is_tangent(node: fx.Node) -> bool:
    """Whether a placeholder of a joint graph is a gradient that the backward part is given."""
    return partitioners._is_tangent(node)


def graph_break_of(dynamo_graph: fx.GraphModule) -> str | None:
    """Why Dynamo ended this graph before the function's end, with the line; None if it did not."""
    reason = getattr(dynamo_graph, "compile_subgraph_reason", None)
    if reason is None or not reason.graph_break:
        return None
    where = ""
    if reason.user_stack:
        frame = reason.user_stack[-1]
        if frame.lineno:  # DDP, which splits what Dynamo traced, has none to give.
            where = f" at {frame.filename}:{frame.lineno} ({frame.line})"
    return f"{str(reason.reason).strip().splitlines()[0]}{where}"


def compiled_frame_id() -> tuple[int, int] | None:
    """Dynamo's (frame id, compilation number) of what is being compiled, None outside of it."""
    compile_id = CompileContext.current_compile_id()
    if compile_id is None or compile_id.frame_id is None:
        return None
    return compile_id.frame_id, compile_id.frame_compile_id or 0


def is_symbolic(value: object) -> bool:
    """Whether a value stands for a Python number that is no constant of the graph."""
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


def number_now(symbol: Any) -> int | float | bool:
    """The number that a symbolic one stands for in the call that is being compiled."""
    return symbol.node.hint


def depends_on_data(value: object) -> bool:
    """Whether a traced number, or a size of a traced tensor, is only known when the step runs."""
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided:
            return False
        nbytes: Any = value.untyped_storage().nbytes()
        sizes = (*value.shape, *value.stride(), value.storage_offset(), nbytes)
        return any(map(depends_on_data, sizes))
    return is_symbolic(value) and bool(free_unbacked_symbols(cast("Any", value)))


def largest_size(size: int | torch.SymInt) -> int | None:
    """The largest that a size can be which depends on the data; None where nothing says so."""
    if not isinstance(size, torch.SymInt):
        return size
    upper = size.node.shape_env.bound_sympy(size.node.expr).upper
    # torch's own largest index stands for no bound at all.
    return int(upper) if upper.is_Integer and upper < sys.maxsize // 2 else None


def some_number(number: Any) -> int | float | bool:
    """The largest that a number can be which depends on the data, or where nothing says it, one
    that it can be."""
    if not isinstance(number, torch.SymInt):
        return isinstance(number, torch.SymBool) or 1.0
    found = largest_size(number)
    if found is not None:
        return found
    lower = number.node.shape_env.bound_sympy(number.node.expr).lower
    return max(0, int(lower)) if lower.is_Integer else 0


def state_at_most(size: torch.SymInt, most: int) -> None:
    """Tell torch an upper bound of a size that depends on the data."""
    constrain_range(size, min=0, max=most)


def makes_sizes(node: fx.Node) -> bool:
    """Whether a node's data say what size its result has, or what number it is."""
    return bool(node.meta.get("unbacked_bindings"))


def made_by_call(joint: fx.GraphModule, dynamo_graph: fx.GraphModule) -> list[fx.Node]:
    """The inputs of a joint graph that Dynamo makes anew at each call.

    Those are tensors of NumPy's numbers and of Python's that change; arrays share their memory.
    """
    given = dynamo_graph.graph.find_nodes(op="placeholder")
    found: list[fx.Node] = []
    for node in joint.graph.find_nodes(op="placeholder"):
        description, value = node.meta.get("desc"), node.meta.get("val")
        if not isinstance(description, PlainAOTInput) or not isinstance(value, torch.Tensor):
            continue
        # Of a tensor of the caller's Dynamo keeps the attributes.
        if value.dim() == 0 and "tensor_dict" not in given[description.idx].meta:
            found.append(node)
    return found


def needs_gradients(example_inputs: Sequence[Any]) -> bool:
    """Whether AOTAutograd would trace a backward for a graph of these inputs."""
    return torch.is_grad_enabled() and any(
        isinstance(value, torch.Tensor) and value.requires_grad for value in example_inputs
    )


def shared_store() -> Any | None:
    """The store that the processes of a distributed run met in; None where this one is alone."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return None
    if distributed.get_world_size() == 1:
        return None
    return distributed.distributed_c10d._get_default_store()


def share_module_state(module: torch.nn.Module, other: torch.nn.Module) -> None:
    """Let `other` be what `fully_shard` and its like made of `module`, which it stands for.

    They keep what they know of a module beside it.
    """
    state = _composable_state._get_module_state(module)
    if state is not None:
        _composable_state._insert_module_state(other, state)


def compiles_itself(module: torch.nn.Module) -> bool:
    """Whether `module.compile()` was called, so that torch compiles whatever a call of it runs."""
    return getattr(module, "_compiled_call_impl", None) is not None


def call_when_accumulated(
    parameter: torch.Tensor, function: Callable[[torch.Tensor], None]
) -> Removable:
    """Call `function` whenever a gradient has been added to a parameter's ``.grad``."""
    return parameter.register_post_accumulate_grad_hook(function)


def called_when_accumulated(parameter: torch.Tensor) -> list[Callable[..., Any]]:
    """What is called whenever a gradient has been added to a parameter's ``.grad``."""
    hooks: Any = getattr(parameter, "_post_accumulate_grad_hooks", None)
    return list(hooks.values()) if hooks else []


def requires_grad(tree: object) -> bool:
    """Whether a tensor somewhere in nested tuples, lists, dicts and dataclasses requires grad."""
    return any(isinstance(t, torch.Tensor) and t.requires_grad for t in pytree.tree_leaves(tree))


_POWERS = (torch.pow, operator.pow, operator.ipow, "pow", "pow_", "__pow__")


def specialize_sizes(
    module: fx.GraphModule, example_inputs: Sequence[Any], *, numbers: bool
) -> None:
    """Fix every size in Dynamo's graph to the size that runs; with `numbers`, all numbers too.

    Installs guards, so that another size gets a compilation, and a plan, of its own. A number
    that no tensor's size depends on (a step count, a weight of the loss) may stay symbolic, unless
    it is part of a power: torch traces the gradient of one by other kernels than eager's.
    """
    raised = [
        value.meta.get("example_value")
        for node in module.graph.nodes
        if node.target in _POWERS
        for value in node.all_input_nodes
    ]
    traced = [node.meta.get("example_value") for node in module.graph.nodes]
    sizes: list[Any] = [*raised, *(value for value in example_inputs if numbers)]
    for value in pytree.tree_leaves([list(example_inputs), traced]):
        if isinstance(value, torch.Tensor) and has_storage(value):
            storage: Any = value.untyped_storage().nbytes()  # of a view, it has a symbol of its own
            sizes += (*value.shape, *value.stride(), value.storage_offset(), storage)
    for size in sizes:
        # What depends on data has no number yet.
        if isinstance(size, torch.SymInt) and size.node.has_hint():
            int(size)


def has_storage(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies in memory of its own kind: not one inside of vmap, or a sparse one."""
    return tensor.layout is torch.strided and not torch._C._functorch.is_functorch_wrapped_tensor(
        tensor
    )


def numbers_are_fixed(module: fx.GraphModule, example_inputs: Sequence[Any]) -> bool:
    """Whether all of Python's numbers in Dynamo's graph are the same in every call of it."""
    traced = [node.meta.get("example_value") for node in module.graph.nodes]
    return all(
        _is_constant(value)
        for value in pytree.tree_leaves([list(example_inputs), traced])
        if is_symbolic(value)
    )


def _is_constant(symbol: Any) -> bool:
    node = symbol.node
    if isinstance(symbol, torch.SymInt):
        return node.maybe_as_int() is not None
    if isinstance(symbol, torch.SymFloat):
        return node.maybe_as_float() is not None
    return node.maybe_as_bool() is not None


@contextlib.contextmanager
def compiling_again() -> Generator[None, None, None]:
    """A context in which a graph that was traced is compiled once more, in one of its calls.

    No other thread compiles meanwhile, and the random stream is as it was.
    """
    with convert_frame.compile_lock, torch.random.fork_rng(devices=[]):
        yield


def compile_whole(
    function: Callable[..., Any],
    backend: Callable[..., Any],
    graphs_limit: int,
    on_evict: Callable[[], None] = lambda: None,
    *,
    fullgraph: bool = True,
    ends_inside: bool = False,
) -> Callable[..., Any]:
    """`torch.compile` of `function`: one graph a shape, or an error; several without `fullgraph`.

    With `ends_inside` Dynamo goes on behind a graph that ended within several functions, and traces
    none of them once more, in releases of torch that can do that.

    With more than `graphs_limit` graphs the one that was called the longest ago is let go of, and
    `on_evict` called; it is compiled anew when it comes back. Dynamo itself would fail there.
    What torch can't trace with sizes and numbers as symbols (from the second call on) is traced
    with them fixed, one graph for each.
    """
    compiled, code = _compile_own_code(function, backend, fullgraph)
    settings: dict[str, Any] = {
        # Dynamo counts compilations, those that were let go of too.
        "recompile_limit": sys.maxsize,
        "accumulated_recompile_limit": sys.maxsize,
        # A module's own count of its steps is a number like any other.
        "allow_unspec_int_on_nn_module": True,
        # A hook that comes or goes after the first step counts from then on, as it does uncompiled.
        "skip_nnmodule_hook_guards": False,
        # Said either way, for a function may be called by one that has the other.
        "nested_graph_breaks": ends_inside and _RESUMES_INSIDE,
    }
    ran = False
    graphs = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal ran
        try:
            results = compiled(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            if not ran or "specialize_float" in settings or isinstance(error, PassesThroughDynamo):
                raise
            fixed = {"automatic_dynamic_shapes": False, "specialize_float": True}
            with torch._dynamo.config.patch({**settings, **fixed}):
                results = compiled(*args, **kwargs)
            settings.update(fixed)  # Not where that failed, too: the call was at fault.
        ran = True
        return results

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal graphs
        # Log calls in a model are no reason to fail; they are left out of the compiled step.
        with torch._dynamo.config.patch({**settings, **_ignored_logging()}):
            results = call(*args, **kwargs)
        entries = _debug_get_cache_entry_list(code)
        if len(entries) != graphs:
            graphs = len(entries)
            if _evict_oldest(entries, graphs_limit):
                on_evict()
        return results

    # What Dynamo compiled refers to the code object that it hangs on, where no garbage collector
    # sees it: without this it would live for ever.
    weakref.finalize(run, reset_code, code)
    return run


def _evict_oldest(entries: Sequence[Any], limit: int) -> bool:
    """Let go of what Dynamo compiled for one function beyond `limit`; whether there was any.

    Dynamo keeps its entries in the order in which they were last called, the latest first. It
    is told what it tells itself where an object that a graph was made for is gone. An empty entry
    stays behind at the end; its code, its guards and all that was compiled are freed.
    """
    oldest = [entry for entry in entries if entry.code is not None][limit:]
    for entry in oldest:
        gone = DeletedGuardManagerWrapper("another graph took its place")
        entry.guard_manager.extra_state.invalidate(entry, gone)
    return bool(oldest)


def trace_whole(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    take: Callable[[fx.GraphModule, Sequence[Any]], None],
) -> None:
    """Trace `function` on arguments into one graph, or raise; `take` gets it and its fake inputs.

    As `compile_whole` would trace it at its first call, but nothing is run, and nothing kept.
    """
    settings = {"allow_unspec_int_on_nn_module": True, **_ignored_logging()}
    with (
        # What a compiling call does around its tracing.
        convert_frame.compile_lock,
        _disable_current_modes(),
        _unmoved_random(),
        torch._dynamo.config.patch(settings),
        get_metrics_context(),
    ):
        try:
            while not _traced_once(function, args, kwargs, take):
                pass
        finally:
            TensorifyState.clear()


def _traced_once(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    take: Callable[[fx.GraphModule, Sequence[Any]], None],
) -> bool:
    """Whether that was the last time: AOTAutograd may ask for a number to be fixed."""
    traced = convert_frame.fullgraph_capture(_in_own_code(function), args, kwargs).backend_input
    if traced is None:
        return True  # It computes nothing.
    context = TracingContext(traced.fake_mode)
    context.tensor_to_context = traced.tensor_to_context
    try:
        with tracing(context):
            take(traced.graph_module, traced.example_inputs)
    except torch._dynamo.exc.TensorifyScalarRestartAnalysis:
        return False  # Noted in TensorifyState, which the next tracing reads.
    return True


@contextlib.contextmanager
def _unmoved_random() -> Generator[None, None, None]:
    """Python's random stream is as it was: Dynamo draws from it for calls that it traces."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _compile_own_code(
    function: Callable[..., Any], backend: Callable[..., Any], fullgraph: bool
) -> tuple[Callable[..., Any], types.CodeType]:
    """`function` compiled in a code object of its own, and that object."""
    own = _in_own_code(function)
    compile_function = cast("Callable[..., Callable[..., Any]]", torch.compile)
    return compile_function(own, backend=backend, fullgraph=fullgraph), own.__code__


def _in_own_code(function: Callable[..., Any]) -> types.FunctionType:
    """`function`, called by one with a code object of its own.

    Dynamo counts recompilations per code object, and remembers by its name which numbers have
    changed: two optimized copies of one model class must not share either.
    """

    def fxremat_step(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    code = fxremat_step.__code__
    return types.FunctionType(
        code.replace(co_name=f"fxremat_step_{next(_step_numbers)}"),
        fxremat_step.__globals__,
        "fxremat_step",
        fxremat_step.__defaults__,
        fxremat_step.__closure__,
    )


def ignore_log_calls() -> None:
    """Leave log calls out of every compiled function of the process, from now on.

    For `torch.compile`, which gives a backend no other moment before it traces.
    """
    for name, functions in _ignored_logging(
        getattr(torch._dynamo.config, _IGNORED_LOGGING)
    ).items():
        setattr(torch._dynamo.config, name, functions)


def _ignored_logging(others: Iterable[Callable[..., Any]] = ()) -> dict[str, Any]:
    """The setting of Dynamo's that leaves log calls out."""
    functions = {*others, *_logging_methods()}
    return {_IGNORED_LOGGING: functions if _WRITES_NO_FUNCTIONS else _Functions(functions)}


class _Functions(dict[str, Any]):
    """A set of functions for torch 2.11.

    It writes its configuration as JSON at every compilation, with sets sorted, which functions
    can't be, and logs an error each time. To JSON this is an empty dict.
    """

    def __init__(self, functions: Iterable[Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = frozenset(functions)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.functions)

    def __contains__(self, function: object) -> bool:
        return function in self.functions

    def __deepcopy__(self, _memo: object) -> _Functions:
        return self


def _logging_methods() -> set[Callable[..., Any]]:
    """The functions of `logging` and its `Logger`, those that libraries added to it too."""
    names = ("debug", "info", "warning", "error", "critical", "exception", "log")
    added = ("warning_once", "warning_advice", "info_once")
    owners = (logging, logging.Logger)
    methods = {getattr(owner, name, None) for owner in owners for name in (*names, *added)}
    return {method for method in methods if method is not None}


def unwrap_graph_break(error: BaseException) -> str | None:
    """The reason, if `error` is Dynamo's way of saying that a function is not one graph."""
    if isinstance(error, (torch._dynamo.exc.Unsupported, torch._dynamo.exc.UserError)):
        return _to_the_user(str(error))
    return None


def summary_of_break(reason: str) -> str:
    """A graph break's reason in a line: what the function says that asked for it, if one did."""
    asked = re.search(r"`torch.compiler.disable` \(reason: (.*)\)", reason)
    return asked[1] if asked else reason.strip().splitlines()[0]


def torch_failure(error: BaseException) -> str | None:
    """What torch says, if `error` is one that its tracing shouldn't raise, with the user's line."""
    if isinstance(error, torch._dynamo.exc.BackendCompilerFailed):
        error = error.inner_exception
    internal = (
        torch._dynamo.exc.InternalTorchDynamoError,
        PendingUnbackedSymbolNotFound,
        GuardOnDataDependentSymNode,
    )
    return _to_the_user(str(error)) if isinstance(error, internal) else None


def shorten(error: BaseException) -> bool:
    """Whether `error` is one that an op of the model raised, with its operands' sizes.

    It then loses the frames of Dynamo, which names the user's own in its message.
    """
    if not isinstance(error, torch._dynamo.exc.TorchRuntimeError) or torch._dynamo.config.verbose:
        return False
    error.args = (_to_the_user(str(error)), *error.args[1:])
    error.__traceback__ = None
    return True


def shown_cause(error: BaseException) -> BaseException | None:
    """What to raise another error from: Dynamo's own has forty frames and nothing more to say,
    unless it was told to show them (TORCHDYNAMO_VERBOSE=1)."""
    return error if torch._dynamo.config.verbose else None


def _to_the_user(message: str) -> str:
    """Dynamo's message without our own frame among the user's, and without how to report to
    PyTorch what is no bug of PyTorch's."""
    return _NOT_TO_THE_USER.sub("", message).rstrip()


def fake_mode_of(node: fx.Node) -> FakeTensorMode | None:
    """The fake tensor mode that a traced node's value belongs to."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = next((v for v in value if isinstance(v, FakeTensor)), None)
    return value.fake_mode if isinstance(value, FakeTensor) else None


def fake_mode() -> FakeTensorMode:
    """A mode in which tensors have shapes and no memory; Dynamo traces functions of them."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextlib.contextmanager
def real_ops(device: torch.device) -> Generator[None, None, None]:
    """Leave tracing, autocast and gradients for a while: real tensors run in their own types.

    A graph has its casts written out; a user's autocast around the call is none of its ops'.
    """
    with (
        _disable_current_modes(),
        no_python_dispatcher(),
        torch.autocast(device.type, enabled=False),
        torch.no_grad(),
    ):
        yield


def view_strides(tensor: torch.Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    """The strides that `view` really gives; under the Python dispatcher a trace may have others."""
    with no_python_dispatcher():
        strides = tensor.stride()
        empty = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device="meta")
        return empty.view(tuple(shape)).stride()


# The CPU's attention takes the first arguments of the others, and has no formula of its own.
_FLOPS_AS: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        torch.ops.aten._scaled_dot_product_flash_attention
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        torch.ops.aten._scaled_dot_product_flash_attention_backward
    ),
}


def flop_formula(target: Any) -> Callable[..., int] | None:
    """torch's FLOP formula of an op, called as the op with `out_val=` its result."""
    packet = getattr(target, "overloadpacket", target)
    packet = _FLOPS_AS.get(packet, packet)
    return cast("Callable[..., int] | None", flop_registry.get(packet))


def profiler_is_active() -> bool:
    """Whether a torch profiler sees what this thread runs (only one can)."""
    return bool(torch._C._autograd._profiler_enabled())


def unprofiled(function: Callable[[], _Result]) -> _Result:
    """What `function` returns, run where no profiler sees it: if need be, in another thread."""
    if not profiler_is_active():
        return function()
    threads = torch.get_num_threads()

    def run() -> _Result:
        torch.set_num_threads(threads)  # OpenMP has a number for each thread.
        return function()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def allocation_events(function: Callable[[], object], device: torch.device) -> list[int]:
    """The allocator's events on a device while `function` runs, in order: bytes, negative frees.

    By torch's older profiler. The other one exists once in a process: to start it beside one of
    the user's, running in any thread or warming up, ends the process.
    """
    profiler = torch._C._profiler
    config = profiler.ProfilerConfig(
        profiler.ProfilerState.CPU,
        report_input_shapes=False,
        profile_memory=True,
        with_stack=False,
        with_flops=False,
        with_modules=False,
        experimental_config=profiler._ExperimentalConfig(),
    )
    torch._C._autograd._enable_profiler_legacy(config)
    try:
        function()
    finally:
        threads = torch._C._autograd._disable_profiler_legacy()
    on_cpu = device.type == "cpu"
    allocations = [e for events in threads for e in events if e.kind() == "memory_alloc"]
    nbytes = [e.cpu_memory_usage() if on_cpu else e.cuda_memory_usage() for e in allocations]
    return [n for n in nbytes if n]


def dispatch_modes() -> list[str]:
    """The names of the modes that see every op now, under which Dynamo compiles nothing."""
    return [
        type(mode).__name__
        for mode in _get_current_dispatch_mode_stack()
        if not (mode.is_infra_mode() or mode.ignore_compile_internals())
    ]


def break_graph(reason: str) -> None:
    """End the graph that Dynamo traces now; an error that says why where it must be whole."""
    torch._dynamo.graph_break(msg=reason)


def autocast_is_on() -> bool:
    """Whether ops on any device are cast now."""
    return torch._C._is_any_autocast_enabled()


def storage_key(tensor: torch.Tensor) -> int:
    """Identity of a (fake) tensor's storage; valid while the tensor is alive."""
    return tensor.untyped_storage()._cdata


def without_dynamo(function: Callable[..., Any], why: str | None = None) -> Callable[..., Any]:
    """`function`, never traced by Dynamo; `why` is said where a graph ends for it."""
    return torch._dynamo.disable(function, reason=why)


def forked_generators(device: torch.device) -> AbstractContextManager[Any]:
    """A context after which the global generators, the device's too, are as they were before."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def memory_events(recorded: torch.profiler.profile) -> list[int]:
    """The allocation events of a finished profile on the CPU, in order of time."""
    results = recorded.profiler.kineto_results
    events = [
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU
    ]
    events.sort(key=lambda event: event[0])
    return [nbytes for _, nbytes in events]


def start_memory_events() -> None:
    """Have the CPU allocator's events of this thread noted, and nothing else, until they are taken.

    No op is noted: of the scopes that torch can note, one is asked for that nothing has.
    """
    config = ProfilerConfig(
        ProfilerState.KINETO, False, True, False, False, False, _ExperimentalConfig()
    )
    activities = {torch.autograd.ProfilerActivity.CPU}
    torch._C._autograd._prepare_profiler(config, activities)
    torch._C._autograd._enable_profiler(config, activities, {RecordScope.LITE_INTERPRETER})


def take_memory_events() -> list[int]:
    """The events since `start_memory_events`, in order of time, which ends it.

    Only of memory that was allocated since: of other blocks torch may report the size that another
    had which was at the same address under an earlier profiler.
    """
    recorded = torch._C._autograd._disable_profiler()
    allocations = [e for e in recorded.experimental_event_tree() if e.tag == _ALLOCATION]
    allocations.sort(key=lambda event: event.start_time_ns)
    there: dict[int, int] = {}
    found: list[int] = []
    for event in allocations:
        fields = event.extra_fields
        address, nbytes = fields.ptr, fields.alloc_size
        if nbytes > 0:
            there[address] = nbytes
            found.append(nbytes)
        elif address in there:
            found.append(-there.pop(address))
    return found


def in_backward() -> bool:
    """Whether the autograd engine runs in this thread."""
    return torch._C._current_graph_task_id() != -1


def keeps_graph() -> bool:
    """Whether the backward that runs leaves its graph for another one (``retain_graph=True``)."""
    return bool(torch._C._autograd._get_current_graph_task_keep_graph())


def when_backward_ends(function: Callable[[], None]) -> None:
    """Call `function` when the backward that runs has accumulated all of its gradients."""
    torch.autograd.Variable._execution_engine.queue_callback(function)


def call_before_optimizers(function: Callable[..., None]) -> Removable:
    """Call `function` before any optimizer's next step, until the hook is removed."""
    return register_optimizer_step_pre_hook(function)


def compiled_backward_of(results: Sequence[Any]) -> Any:
    """The autograd node of the graph of AOTAutograd's that made some results; None without one.

    Where a result is a view that AOTAutograd takes outside of the graph the node is behind it.
    """
    for result in results:
        node = result.grad_fn if isinstance(result, torch.Tensor) else None
        for _ in range(3):
            if node is None:
                break
            if node.name() == "CompiledFunctionBackward":
                return node
            node = next((before for before, _ in node.next_functions if before is not None), None)
    return None


def let_graph_be_kept(node: Any) -> None:
    """Have backwards of a graph of AOTAutograd's, given by its node, keep it whenever they like.

    After one that kept nothing AOTAutograd would refuse that: compilers such as Inductor write
    into what was saved for it.
    """
    type(node)._forward_cls.metadata.bw_donated_idxs = []


def storage_holders(tensor: torch.Tensor) -> Callable[[], int]:
    """A function that says how many hold a tensor's memory: 0 once it is freed.

    Counts are for comparing: torch may count the storage's Python object along.
    """
    reference = StorageWeakRef(tensor.untyped_storage())
    return lambda: 0 if reference.expired() else torch._C._storage_Use_Count(reference.cdata)


def is_impure(node: fx.Node) -> bool:
    """Whether fx takes a node for one with effects; drawing random numbers is none."""
    if _TELLS_RANDOM:
        return node.is_impure(impure_random=False)
    return node.is_impure()


def recompilations_left(frame_compile_id: int) -> int:
    """How many more times Dynamo compiles a frame before it runs it uncompiled, after this one."""
    return torch._dynamo.config.recompile_limit - 1 - frame_compile_id


def compile_call() -> object:
    """What `torch.compile` made for the call whose graph is being compiled; None if not found.

    It calls the backend, so it is among the callers.
    """
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self") if frame.f_code.co_name == "__call__" else None
        if isinstance(owner, torch._TorchCompileWrapper):
            return owner
        frame = frame.f_back
    return None


def running_inside() -> str | None:
    """The function that runs uncompiled around what is being compiled; None without one.

    Where Dynamo gives up on a function (a graph break in a loop) it runs that function as it is
    and compiles the functions that it calls, one by one. It is the user's, or the forward of one
    of torch's layers: an `nn.Sequential` over blocks that FSDP has its hooks on.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == eval_frame.__file__ and code.co_name in ("compile_wrapper", "_fn"):
            return None
        if not code.co_filename.startswith(_NOT_THE_USERS):
            return f"{code.co_name} at {code.co_filename}:{frame.f_lineno}"
        if code.co_name == "forward" and code.co_filename.startswith(_LAYERS):
            return f"{type(frame.f_locals.get('self')).__name__}.forward"
        frame = frame.f_back
    return None


def schema_of(op: OpOverload) -> torch.FunctionSchema:
    """The name, arguments and mutability of an op."""
    return op._schema


def tree_leaves(tree: object) -> list[Any]:
    """All that is no tuple, list or dict in nested ones."""
    return pytree.tree_leaves(tree)


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """Nested tuples, lists and dicts with every leaf replaced."""
    return pytree.tree_map(function, tree)


def is_control_flow(target: object) -> bool:
    """Whether a target runs the graphs that it is given as often as its shapes say: cond or loops
    of fixed length."""
    return target in (torch.ops.higher_order.cond, map_impl, torch.ops.higher_order.scan)


def is_cond(target: object) -> bool:
    """Whether a target is the operator that runs one of two graphs."""
    return target is torch.ops.higher_order.cond


def is_higher_order(target: object) -> bool:
    """Whether a node's target takes functions or graphs (cond, scan, flex_attention)."""
    return isinstance(target, HigherOrderOperator)


def negated_view(tensor: torch.Tensor) -> torch.Tensor:
    """A view of a tensor that is marked as negated, as the imaginary part of a conjugate is."""
    return torch._neg_view(tensor)


def has_compiled_regions(dynamo_graph: fx.GraphModule) -> bool:
    """Whether a graph of Dynamo's calls regions that AOTAutograd splits one by one."""
    return any(
        node.target is torch.ops.higher_order.invoke_subgraph
        for module in dynamo_graph.modules()
        if isinstance(module, fx.GraphModule)
        for node in module.graph.nodes
    )


def flatten_tree(tree: object) -> tuple[list[Any], Any]:
    """The leaves of nested tuples, lists, dicts and registered classes, and what nests them."""
    return pytree.tree_flatten(tree)


def unflatten_tree(leaves: Sequence[Any], nesting: Any) -> Any:
    """The tree of which `flatten_tree` gave the leaves and the nesting."""
    return pytree.tree_unflatten(leaves, nesting)


def is_leaf(nesting: Any) -> bool:
    """Whether a tree of this nesting is one leaf by itself."""
    found = nesting.is_leaf
    return bool(found() if callable(found) else found)


def next_node_number() -> int:
    """The number that autograd gives to the next node it makes in this thread."""
    return torch._C._autograd._get_sequence_nr()


def node_number(node: Any) -> int:
    """The number of an autograd node: those made later in a thread have larger ones."""
    return node._sequence_nr()


@contextlib.contextmanager
def without_tensor_hooks(tensors: Iterable[torch.Tensor]) -> Generator[None, None, None]:
    """Meanwhile no hook of `Tensor.register_hook` on these tensors is called."""
    kept = [(hooks, dict(hooks)) for t in tensors if (hooks := t._backward_hooks)]
    for hooks, _ in kept:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, these in kept:
            hooks.update(these)


def in_function_transform() -> bool:
    """Whether a transform of torch.func's (vmap, grad, jvp) is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def versions(leaves: Iterable[Any]) -> tuple[int, ...]:
    """How often each tensor among the leaves was changed in place."""
    return tuple([t._version for t in leaves if isinstance(t, torch.Tensor)])


def autocast_caches() -> bool:
    """Whether autocast would keep the casts of parameters that it makes."""
    return torch.is_autocast_cache_enabled()


def has_gradient_hooks(tensor: torch.Tensor) -> bool:
    """Whether a function of Python's is called with the tensor's gradient."""
    return bool(tensor._backward_hooks) or bool(called_when_accumulated(tensor))


def changing_number(value: int) -> Any:
    """A whole number for which a trace has a symbol, as it changes from call to call."""
    return DynamicInt(value)


def trace_holds_for() -> Callable[[int], bool] | None:
    """Whether the trace under way holds for a value of its changing number; None where for all.

    Asked at its end. What was taken for granted is noted even where the graph has no such input.
    """
    environment = TracingContext.get().fake_mode.shape_env
    taken = [guard.expr for guard in environment.guards if len(guard.expr.free_symbols) == 1]
    if not taken:
        return None

    def holds(number: int) -> bool:
        return all(expr.subs(next(iter(expr.free_symbols)), number) == True for expr in taken)  # noqa: E712

    return holds


def output_of_tangent(tangent: fx.Node) -> int | None:
    """Which of the traced function's outputs a tangent of a joint graph is the gradient of."""
    output = getattr(tangent.meta.get("desc"), "output", None)
    return output.idx if isinstance(output, PlainAOTOutput) else None


def own_tensors(module: fx.GraphModule) -> list[torch.Tensor]:
    """The tensors that Dynamo's graph has of its own, which AOTAutograd puts before its inputs."""
    return [
        *dict(module.named_parameters(remove_duplicate=False)).values(),
        *dict(module.named_buffers(remove_duplicate=False)).values(),
    ]


def marked(x: torch.Tensor, mark: str) -> torch.Tensor:
    """`x` as a node of its own in the graph that is traced, which `mark_of` knows again."""
    with fx.traceback.annotate({"fxremat": mark}):
        return torch.ops.aten.alias.default(x)


def mark_of(node: fx.Node) -> str | None:
    """The mark of a node that `marked` made; None for others."""
    if node.target is not torch.ops.aten.alias.default:
        return None
    return (node.meta.get("custom") or {}).get("fxremat")


def checkpoint_policy(node: fx.Node) -> str:
    """What torch's selective checkpointing says of a node ("MUST_SAVE"); empty outside of it."""
    return getattr(node.meta.get("recompute"), "name", "")


def checkpointed_region(node: fx.Node) -> object:
    """Which call of torch's checkpointing a node is traced in; None outside of any."""
    return node.meta.get("ac_graph_id")


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`function.apply` without the part that looks for torch.func's transforms."""
    return super(torch.autograd.Function, function).apply


def gradients(
    root: torch.Tensor, seed: torch.Tensor, leaves: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor | None, ...]:
    """`torch.autograd.grad` of one root, none where a leaf isn't used, without its checks."""
    engine = torch.autograd.Variable._execution_engine
    return engine.run_backward(
        (root,), (seed,), False, False, leaves, allow_unreachable=True, accumulate_grad=False
    )


class GraphOperator(BaseHOP):
    """An operator on a function, which Dynamo traces into a graph of its own: `call` gets that.

    What the function reads beside its arguments becomes operands. Called by Python, `call` gets the
    function itself.
    """

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        HigherOrderOperator.__init__(self, name)
        self.py_impl(torch._C.DispatchKey.Autograd)(call)
        self.py_impl(torch._C.DispatchKey.CompositeExplicitAutograd)(call)

        # Without gradients the modes of a trace come first, one after the other.
        def functional(context: Any, function: Any, *operands: Any, **options: Any) -> Any:
            inner = context.unwrap_tensors(operands)
            with context.redispatch_to_next():
                return context.wrap_tensors(self(function, *inner, **options))

        def within(mode: Any, function: Any, *operands: Any, **options: Any) -> Any:
            with mode:
                return call(function, *operands, **options)

        self.py_functionalize_impl(functional)
        self.py_impl(ProxyTorchDispatchMode)(within)
        self.py_impl(FakeTensorMode)(within)

    def __call__(self, function: Callable[..., Any], *operands: Any, **options: Any) -> Any:
        return HigherOrderOperator.__call__(self, function, *operands, **options)


def new_number() -> Any:
    """A whole number that no trace knows, for the fake implementation of an operator."""
    return torch.library.get_ctx().new_dynamic_size()


def never_compile_frame(function: Callable[..., Any]) -> None:
    """Have Dynamo run a function as it is where it is not traced as a part of another one."""
    eval_frame.skip_code(function.__code__)


def source_of(graph: fx.Graph) -> str:
    """A graph as Python's source, of a function `forward(self, ...)` with its imports."""
    code = graph.python_code("self")
    return _format_import_block(code.globals, sys_importer) + "\n" + code.src


class OpsSeen(TorchDispatchMode):
    """The ops that run inside of it, each with what gives an argument by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, Callable[[str], object]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False))
        plain = {k: v for k, v in (given | (kwargs or {})).items() if _is_plain(v)}
        self.seen.append((func, plain.get))
        return func(*args, **(kwargs or {}))


def _is_plain(value: object) -> bool:
    return isinstance(value, (bool, int, float, str))


def untraced() -> AbstractContextManager[Any]:
    """Outside of every mode that sees ops, tracing among them."""
    return _disable_current_modes()
