"""Every private torch API that planning Inductor's kernels stands on, and nothing else.

Inductor's own classes of lines become `Line`s here: what the rest of the package sees are texts,
names of buffers and layouts. `tests/fxremat/test_inductor_hooks.py` fails loudly when one changes.
"""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import copy
import re
import threading
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, cast

import torch
import torch._functorch.config
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo import compiled_autograd
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import detect_fake_mode
from torch._functorch import partitioners
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode

from fxremat.torch_hooks import (
    LEAVE_SEEDS_ON_CPU,
    SEED_OUTPUTS,
    CompileAgain,
    GraphCompiler,
    OnTraced,
    Partitioner,
    aot_compiler,
    hear_of_traces,
    lazy_graph_module,
)

# Triton's kernels load and store in pieces of so many bytes.
ALIGNMENT = 16


class Kind(Enum):
    """What a line of a wrapper does."""

    ALLOCATE = "allocates a buffer"
    KERNEL = "calls a compiled kernel on buffers"
    OUT = "calls an op that writes into a buffer"
    OP = "calls an op that allocates its result"
    ITEM = "takes one of several results"
    ALIAS = "names a part of a buffer"
    NOTHING = "does nothing that counts"
    STREAM = "asks for the stream"
    UNKNOWN = "is not known"


@dataclass(frozen=True)
class Layout:
    """A buffer as Inductor lays it out."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Line:
    """One line of a compiled wrapper.

    `makes` is the name that it gives to a new buffer or part of one, `writes` what it writes to.
    `source` tells what a kernel does, `atomic` that it adds up in the order of the threads; `op` is
    the op of the dispatcher that is called, where it is one. `views` are the buffers that what it
    makes may be a part of. `origin` is an op of the traced graph that it is for.
    """

    kind: Kind
    text: tuple[str, ...]
    name: str = ""
    makes: str = ""
    layout: Layout | None = None
    writes: tuple[str, ...] = ()
    source: str = ""
    atomic: bool = False
    op: Any = None
    views: tuple[str, ...] = ()
    origin: fx.Node | None = None


@dataclass(frozen=True)
class Wrapper:
    """One graph as Inductor compiled it.

    `lines` are in the order in which they run, `inputs` the names of its arguments, `outputs` what
    it returns, as expressions over names. `namespace` has the compiled kernels. `aligned` are the
    positions of arguments that the kernels take to begin at a multiple of `ALIGNMENT` bytes.
    `in_place` says, of a buffer, over which other its kernel could write it once nobody else needs
    that one.
    """

    lines: tuple[Line, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    namespace: dict[str, Any]
    aligned: tuple[int, ...] = ()
    in_place: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Pair:
    """Forward and backward as Inductor compiled them.

    Forward returns `num_fwd_outputs` of the user's, then what backward takes first. `tangents` are
    the names of backward's other arguments.
    """

    forward: Wrapper
    backward: Wrapper
    num_fwd_outputs: int
    tangents: tuple[str, ...]


# What makes each kernel a function of its buffers, and the wrapper one of Python lines.
_INDUCTOR = {
    "allow_buffer_reuse": False,
    "inplace_buffers": False,
    "inplace_padding": False,
    "memory_planning": False,
    "cpp_wrapper": False,
    "fx_wrapper": False,
    "graph_partition": False,
    "custom_partitioner_fn": None,
    "fx_graph_cache": False,
    "fx_graph_remote_cache": False,
    "size_asserts": False,
    "alignment_asserts": False,
    "nan_asserts": False,
    "freezing": False,
    "profile_bandwidth": False,
    "triton.cudagraphs": False,
    "triton.cudagraph_trees": False,
    # Its kernels share one buffer of semaphores over a whole graph.
    "triton.cooperative_reductions": False,
    "triton.autotune_at_compile_time": False,
    "triton.mix_order_reduction": False,  # its sums over a workspace are no kernels
    "triton.debug_sync_graph": False,
    "triton.debug_sync_kernel": False,
}
_FUNCTORCH = {
    "donated_buffer": False,
    "enable_autograd_cache": False,
    "activation_memory_budget": 1.0,
    # As in eager, where a backward is called outside of the autocast around its forward.
    "backward_pass_autocast": "off",
    "unlift_effect_tokens": True,
}


def _known(config: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Those of some settings that this torch has."""

    def has(path: str) -> bool:
        holder, found = config, True
        for part in path.split("."):
            found = found and hasattr(holder, part)
            holder = getattr(holder, part, None)
        return found

    return {path: value for path, value in settings.items() if has(path)}


@contextlib.contextmanager
def _configured() -> Generator[None, None, None]:
    """Inductor and AOTAutograd as planning needs them, on this thread and for now."""
    from torch._inductor import config

    functorch = torch._functorch.config
    with (
        config.patch(_known(config, _INDUCTOR)),
        functorch.patch(_known(functorch, _FUNCTORCH)),
    ):
        yield


def make_inductor_backend(
    partitioner: Partitioner,
    compile_graph: GraphCompiler,
    on_traced: OnTraced = lambda _again: None,
) -> Callable[..., Callable[..., Any]]:
    """A Dynamo backend that traces as Inductor does: its passes before autograd and decompositions.

    Both halves that `partitioner` makes are compiled by `compile_graph`. Before it is called,
    `on_traced` is given what compiles the same graph again.
    """
    from torch._inductor import compile_fx
    from torch._inductor.virtualized import V

    def note(again: CompileAgain) -> None:
        def configured(partitioner: Partitioner, compile_graph: GraphCompiler) -> Any:
            with _configured():
                return again(partitioner, compile_graph)

        on_traced(configured)

    def compile_module(module: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        fake_mode = detect_fake_mode(inputs) or FakeTensorMode(allow_non_fake_inputs=True)
        context = TracingContext.try_get() or TracingContext(fake_mode)
        make = aot_autograd(
            fw_compiler=aot_compiler(compile_graph),
            partition_fn=partitioner,
            decompositions=compile_fx.select_decomp_table(),
            keep_inference_input_mutations=True,
        )
        with (
            V.set_fake_mode(fake_mode),
            tracing(context),
            compiled_autograd._disable(),
            _configured(),
        ):
            with enable_python_dispatcher():
                traced = compile_fx.run_pre_grad_passes(module, inputs)
            with hear_of_traces(traced, note):
                return make(traced, inputs)

    return compile_module


def compile_pair(
    joint: fx.GraphModule,
    *,
    num_fwd_outputs: int,
    static_lifetime_input_indices: Sequence[int],
) -> Pair:
    """Compile a joint graph as Inductor does: its passes, its min-cut, its kernels.

    Called where AOTAutograd asks for a partition. The joint graph is changed.
    """
    from torch._inductor import compile_fx

    inputs = joint.graph.find_nodes(op="placeholder")
    joint_inputs = (
        [node.meta["val"] for node in inputs if not partitioners._is_tangent(node)],
        [node.meta["val"] for node in inputs if partitioners._is_tangent(node)],
    )
    with _configured(), torch.no_grad():
        forward, backward = compile_fx.partition_fn(
            joint,
            joint_inputs,
            num_fwd_outputs=num_fwd_outputs,
            static_lifetime_input_indices=list(static_lifetime_input_indices),
        )
        output = next(iter(forward.graph.find_nodes(op="output")))
        results = cast("tuple[Any, ...]", output.args[0])
        output.meta["user_visible_output_idxs"] = [
            k for k in range(num_fwd_outputs) if isinstance(results[k], fx.Node)
        ]
        with TracingContext.report_output_strides() as strides:
            first = _compile(forward, _examples(forward), is_backward=False)
        examples = _examples(backward)
        # Numbers that are saved come last there and first here.
        place_of = {
            node.name: k for k, node in enumerate(backward.graph.find_nodes(op="placeholder"))
        }
        for node, stride in zip(
            results[num_fwd_outputs:], strides[num_fwd_outputs:] if strides else (), strict=False
        ):
            # Kernels may lay out what they save otherwise than it was traced.
            k = place_of[node.name]
            if stride is not None and isinstance(examples[k], torch.Tensor):
                examples[k] = examples[k].as_strided(examples[k].size(), stride)
        output = next(iter(backward.graph.find_nodes(op="output")))
        output.meta["user_visible_output_idxs"] = []
        second = _compile(backward, examples, is_backward=True)
    number = len(results) - num_fwd_outputs
    return Pair(first, second, num_fwd_outputs, second.inputs[number:])


def missing_compiler(device_type: str) -> str:
    """What Inductor lacks to compile for a device; empty where it lacks nothing."""
    if device_type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return "a C++ compiler"
        return ""
    from torch.utils._triton import has_triton

    return "" if has_triton() else "Triton"


def configuration() -> str:
    """All settings that change what Inductor makes of a graph."""
    from torch._inductor import config

    flags = (
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch.backends.cuda.matmul.allow_tf32,
    )
    return f"{config.get_hash()!r}{flags}"


def _examples(module: fx.GraphModule) -> list[Any]:
    return [node.meta["val"] for node in module.graph.find_nodes(op="placeholder")]


def _compile(module: fx.GraphModule, examples: Sequence[Any], *, is_backward: bool) -> Wrapper:
    """One half of a step, compiled and read."""
    from torch._inductor import compile_fx
    from torch._inductor.utils import BoxedBool
    from torch._inductor.virtualized import V

    apart = V.set_choices_handler(_with_draws_apart(V.choices))
    given = len(examples) if is_backward else 0
    with _recording() as recorded, _ungrouped(), _noting_in_place(recorded, given), apart:
        compiled = compile_fx.compile_fx_inner(
            module,
            examples,
            static_input_idxs=(),
            cudagraphs=BoxedBool(False),
            is_backward=is_backward,
            is_inference=False,
        )
    assert recorded.wrapper is not None
    assert recorded.module is not None
    graph = recorded.wrapper.graph
    return Wrapper(
        lines=tuple(recorded.wrapper.lines),
        inputs=tuple(graph.graph_input_names),
        outputs=tuple(recorded.wrapper.codegen.get_output_refs()),
        namespace=vars(recorded.module),
        aligned=tuple(getattr(compiled, "inputs_to_check", ())),
        in_place=recorded.in_place,
    )


@contextlib.contextmanager
def _noting_in_place(recorded: _Recorded, given: int) -> Generator[None, None, None]:
    """Note what Inductor would write in place, and don't let it. Call with `_lock` held.

    In the order with nothing recomputed, it is what nobody needs any more: whether that is so in
    another order is seen there. `given` is how many arguments may be written over.
    """
    from torch._inductor import config, graph
    from torch._inductor.scheduler import SchedulerNode
    from torch._inductor.virtualized import V

    decide, donated = SchedulerNode.decide_inplace_update, graph.get_donated_idxs

    def decide_inplace_update(self: Any) -> None:
        kernel = V.kernel
        args = getattr(kernel, "args", None)
        if args is None or threading.get_ident() != recorded.thread:
            decide(self)
            return
        kept = {
            name: copy.copy(getattr(kernel, name))
            for name in ("inplace_update_buffers", "mutations")
            if hasattr(kernel, name)
        }
        args.make_inplace = lambda over, name: recorded.in_place.setdefault(name, over)
        try:
            with config.patch(inplace_buffers=True):
                decide(self)
        finally:
            del args.make_inplace
            for name, value in kept.items():
                setattr(kernel, name, value)

    SchedulerNode.decide_inplace_update = decide_inplace_update
    graph.get_donated_idxs = lambda: list(range(given))
    try:
        yield
    finally:
        SchedulerNode.decide_inplace_update = decide
        graph.get_donated_idxs = donated


@contextlib.contextmanager
def _ungrouped() -> Generator[None, None, None]:
    """A function of its own for each loop nest, on a CPU. Call with `_lock` held.

    Inductor writes all nests up to the next call of a library into one C++ function, which spares
    some calls of microseconds. Each nest alone makes fewer values, and can be run again for them.
    """
    from torch._inductor.codegen.cpp import CppScheduling

    limit = CppScheduling.MAX_FUSED_KERNEL_ARGS_NUM
    CppScheduling.MAX_FUSED_KERNEL_ARGS_NUM = 0
    try:
        yield
    finally:
        CppScheduling.MAX_FUSED_KERNEL_ARGS_NUM = limit


# What a kernel that Inductor writes calls to draw a number.
_DRAWING = ("rand", "randn", "randint64", "rand_eager")


def _with_draws_apart(choices: Any) -> Any:
    """Inductor's choices, but on a CPU nothing is fused with what draws and reads more than seeds.

    There a draw takes as long as hundreds of sums. A softmax that is in one kernel with its dropout
    would cost as much to run again, where the mask, at a byte an element, can be kept.
    """
    chosen = type(choices)
    if getattr(chosen, "draws_apart", False):
        return choices

    class Choices(chosen):  # type: ignore[misc, valid-type]
        draws_apart = True

        def can_fuse(self, scheduler: Any, node1: Any, node2: Any, *rest: Any) -> bool:
            if _draws_with_others(node1, node2):
                return False
            return bool(choices.can_fuse(scheduler, node1, node2, *rest))

    return Choices()


def _draws_with_others(node1: Any, node2: Any) -> bool:
    nodes = [*node1.get_nodes(), *node2.get_nodes()]
    drawing = [node for node in nodes if _draws_numbers(node)]
    if not drawing or node1.get_device().type != "cpu":
        return False
    if len(drawing) > 1:
        return True
    (draw,) = drawing
    made = {name for node in nodes for name in node.get_buffer_names()}
    read = {dep.name for node in nodes if node is not draw for dep in node.read_writes.reads}
    return not read <= made


def _draws_numbers(node: Any) -> bool:
    body = getattr(node, "_body", None)
    return body is not None and any(map(body.has_op, _DRAWING))


@dataclass
class _Recorded:
    """What one compilation made: the lines of its wrapper, and the module with its kernels."""

    thread: int
    wrapper: _Lines | None = None
    module: Any = None
    in_place: dict[str, str] = field(default_factory=dict[str, str])


_lock = threading.RLock()


@contextlib.contextmanager
def _recording() -> Generator[_Recorded, None, None]:
    """Listen to the one graph that is compiled inside, on this thread."""
    from torch._inductor.codegen.wrapper import PythonWrapperCodegen
    from torch._inductor.graph import GraphLowering

    recorded = _Recorded(threading.get_ident())
    passes, to_module = PythonWrapperCodegen.run_wrapper_ir_passes, GraphLowering.compile_to_module

    def run_wrapper_ir_passes(self: Any, is_inference: bool) -> None:
        passes(self, is_inference)
        if threading.get_ident() == recorded.thread and type(self) is PythonWrapperCodegen:
            recorded.wrapper = _Lines.of(self)

    def compile_to_module(self: Any) -> Any:
        module = to_module(self)
        if threading.get_ident() == recorded.thread:
            recorded.module = module
        return module

    with _lock:
        PythonWrapperCodegen.run_wrapper_ir_passes = run_wrapper_ir_passes
        GraphLowering.compile_to_module = compile_to_module
        try:
            yield recorded
        finally:
            PythonWrapperCodegen.run_wrapper_ir_passes = passes
            GraphLowering.compile_to_module = to_module


@dataclass
class _Lines:
    """The lines of a wrapper, each read when it has written its text."""

    codegen: Any
    graph: Any
    lines: list[Line] = field(default_factory=list[Line])
    sources: dict[str, str] = field(default_factory=dict[str, str])

    @staticmethod
    def of(codegen: Any) -> _Lines:
        """Put a noting line in the place of each line of the wrapper that is being written."""
        from torch._inductor.codegen.wrapper import WrapperLine
        from torch._inductor.virtualized import V

        class Noted(WrapperLine):
            def __init__(self, line: Any) -> None:
                self.line = line

            def codegen(self, code: Any) -> None:
                start = len(code._lines)
                if isinstance(self.line, WrapperLine):
                    self.line.codegen(code)  # type: ignore[attr-defined]
                else:
                    code.writeline(self.line)
                texts = [text.strip() for text in map(_text, code._lines[start:])]
                lines.note(self.line, tuple(text for text in texts if text))

        lines = _Lines(codegen, V.graph)
        codegen.lines = [Noted(line) for line in codegen.lines]
        return lines

    def note(self, line: Any, text: tuple[str, ...]) -> None:
        """Read a line while the graph that it belongs to is being written."""
        read = _read_line(line, text, self.sources, self.graph)
        if read.kind is not Kind.NOTHING:
            self.lines.append(replace(read, origin=self._origin(read)))

    def _origin(self, line: Line) -> fx.Node | None:
        """The last op that a kernel was made for and whose line in the user's code is known."""
        buffers = (self.graph.name_to_buffer.get(name) for name in (*line.writes, line.makes))
        nodes = [node for buffer in buffers if buffer is not None for node in buffer.origins]
        return next((node for node in reversed(nodes) if node.meta.get("stack_trace")), None)


def _text(line: Any) -> str:
    """A written line; of one whose buffer was removed, nothing."""
    if isinstance(line, str):
        return line
    if callable(line):  # DeferredLineBase: None where its buffer was removed
        return cast("str | None", line()) or ""
    return ""  # LineContext


def _read_line(line: Any, text: tuple[str, ...], sources: dict[str, str], graph: Any) -> Line:
    from torch._inductor.codegen import wrapper as w

    name = type(line).__name__
    unknown = Line(Kind.UNKNOWN, text, name)
    nothing = Line(Kind.NOTHING, text)
    if isinstance(line, w.KernelDefinitionLine):
        sources[line.kernel_name] = line.kernel_body
        return nothing
    if not text:
        return nothing
    if isinstance(line, w.AllocateLine):
        if getattr(line, "comm_buffer", False):
            return unknown
        return Line(Kind.ALLOCATE, text, makes=line.node.get_name())
    if isinstance(line, w.KernelCallLine):
        return _read_kernel(line, text, sources) or unknown
    if isinstance(line, w.ExternKernelOutLine):
        node = line.node
        return Line(
            Kind.OUT, text, node.get_kernel_name(), writes=(node.get_name(),), op=_op_of(node)
        )
    if isinstance(line, w.ExternKernelAllocLine):
        node = line.node
        if node.get_mutation_names():
            return replace(unknown, name=node.get_kernel_name())
        return Line(
            Kind.OP,
            text,
            node.get_kernel_name(),
            makes=node.get_name(),
            layout=_layout_of(node),
            op=_op_of(node),
            views=tuple(node.get_inputs_that_alias_output()),
        )
    if isinstance(line, w.MultiOutputLine):
        buffer = graph.name_to_buffer.get(line.result_name)
        layout = None if buffer is None else _layout_of(buffer)
        made_by = _op_of(graph.name_to_buffer.get(line.arg_name))
        place = line.indices[-1][1] if line.indices else 0
        if layout is not None and is_seed_on_cpu(made_by, place):
            layout = replace(layout, device=torch.device("cpu"))
        return Line(Kind.ITEM, text, makes=line.result_name, views=(line.arg_name,), layout=layout)
    if isinstance(line, w.ReinterpretLine):
        return Line(
            Kind.ALIAS, text, makes=line.reused_as.get_name(), views=(line.node.get_name(),)
        )
    if isinstance(line, (w.IndexPutFallbackLine, w.ScatterFallbackLine)):
        node = line.node
        (written,) = node.get_mutation_names()
        return Line(
            Kind.OUT,
            text,
            str(node.op_overload),
            writes=(written,),
            op=node.op_overload,
        )
    if isinstance(line, (w.FreeIfNotReusedLine, w.FreeLine, w.NullLine, w.CommentLine)):
        return nothing
    if isinstance(
        line, (w.EnterDeviceContextManagerLine, w.ExitDeviceContextManagerLine)
    ) or name in ("AssertSizeStrideLine",):
        return nothing
    if isinstance(line, w.UnbackedSymbolDefsLine):
        return unknown  # It has text only where a size depends on the data.
    if isinstance(line, str):
        return _read_string(line, text)
    return unknown


def _read_string(line: str, text: tuple[str, ...]) -> Line:
    """Lines that Inductor writes out at once."""
    stripped = line.strip()
    if stripped.startswith(("#", "del ", "assert_size_stride(", "assert_alignment(")):
        return Line(Kind.NOTHING, text)
    if stripped.endswith(".zero_()") and stripped[: -len(".zero_()")].isidentifier():
        buffer = stripped[: -len(".zero_()")]
        return Line(Kind.OUT, text, "zero_", writes=(buffer,))
    if " = get_raw_stream(" in stripped:
        return Line(Kind.STREAM, text)
    return Line(Kind.UNKNOWN, text, stripped)


# How Triton's kernels name the pointers that they write to; all others they read.
_WRITTEN = ("out_ptr", "in_out_ptr", "ws_ptr", "sem_ptr", "semaphores")
_READ = ("in_ptr", "arg_", "load_seed_offset", "ks")


def _read_kernel(line: Any, text: tuple[str, ...], sources: dict[str, str]) -> Line | None:
    """A call of a kernel that Inductor wrote; None where it can't be told what it writes to."""
    source = sources.get(line.kernel_name, "")
    arguments = [str(argument) for argument in line.call_args]
    written: list[str] = []
    if line.triton:
        changed = set((line.inductor_meta or {}).get("mutated_arg_names", ()))
        names = list((line.triton_meta or {}).get("signature", {}))
        if len(names) < len(arguments):
            return None
        for key, argument in zip(names, arguments, strict=False):
            is_size = key.endswith("numel") or _is_number(argument)
            if key in changed or key.startswith(_WRITTEN):
                written.append(argument)
            elif not key.startswith(_READ) and not is_size:
                return None
    else:
        types = line.arg_types or ()
        if len(types) != len(arguments):
            return None
        written = [
            argument
            for kind, argument in zip(types, arguments, strict=True)
            if "*" in str(kind) and not str(kind).strip().startswith("const")
        ]
    return Line(
        Kind.KERNEL,
        text,
        line.kernel_name,
        writes=tuple(dict.fromkeys(written)),
        source=source or line.kernel_name,
        atomic="atomic_" in source,
    )


def is_seed_on_cpu(op: Any, position: int) -> bool:
    """Whether a result of an op is a number that lies on the CPU, whatever the traces say."""
    return (
        op is not None
        and op._schema.name.removeprefix("aten::") in LEAVE_SEEDS_ON_CPU
        and position in SEED_OUTPUTS
    )


def _is_number(argument: str) -> bool:
    return argument.lstrip("-").replace(".", "", 1).isdigit()


def _op_of(node: Any) -> Any:
    op = getattr(node, "op_overload", None)
    return op if isinstance(op, torch._ops.OpOverload) else None


def _layout_of(node: Any) -> Layout | None:
    """Where and how a buffer lies; None for a result of several tensors."""
    from torch._inductor.ir import Layout as InductorLayout

    layout = node.layout
    if not isinstance(layout, InductorLayout):
        return None
    try:
        size, stride = tuple(map(int, layout.size)), tuple(map(int, layout.stride))
    except TypeError:  # a size that depends on the data
        return None
    return Layout(size, stride, layout.dtype, layout.device)


def copy_aligned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor, strides and all, at the begin of a block."""
    from torch._inductor.utils import clone_preserve_strides

    return clone_preserve_strides(tensor)


def reinterpret(tensor: Any, size: Any, stride: Any, offset: int = 0) -> Any:
    """What Inductor's `reinterpret_tensor` gives, of fake tensors too."""
    return torch.as_strided(tensor, size, stride, tensor.storage_offset() + offset)


# For hosts that only know Inductor: its seam for partitioners, and what it would make of a pair.


def configured_by(settings: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    """Inductor's own configuration, changed within."""
    from torch._inductor import config

    return config.patch(settings)


def be_partitioner(kind: type) -> None:
    """Have Inductor take instances of a class for partitioners of its own kind."""
    from torch._inductor.custom_graph_pass import CustomPartitionerFn

    CustomPartitionerFn.register(kind)


def copy_graph(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of a graph that may be changed; what it computes on is shared."""
    graph, new = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in module.graph.nodes:
        new[node] = graph.node_copy(node, lambda each: new[each])
    return lazy_graph_module(module, graph)


def merge_equal_nodes(joint: fx.GraphModule) -> None:
    """What Inductor's min-cut begins with."""
    from torch._functorch.compile_utils import fx_graph_cse

    joint.graph.eliminate_dead_code()
    joint.graph = fx_graph_cse(joint.graph)
    joint.recompile()


def min_cut(
    joint: fx.GraphModule, num_fwd_outputs: int, static: Sequence[int]
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The two halves that plain `torch.compile` takes. The joint graph is changed."""
    with torch._functorch.config.patch(activation_memory_budget=1.0):
        return partitioners.min_cut_rematerialization_partition(
            joint,
            (),
            compiler="inductor",
            num_fwd_outputs=num_fwd_outputs,
            static_lifetime_input_indices=list(static),
        )


def as_autograd_orders(backward: fx.GraphModule) -> fx.GraphModule:
    """A backward graph with its recomputations where they are first needed, as min-cut has it."""
    return partitioners.reordering_to_mimic_autograd_engine(backward)


class _Generated(BaseException):
    """The wrapper of a graph is written; nothing is to be compiled."""


def generate_pair(
    forward: fx.GraphModule, backward: fx.GraphModule, num_fwd_outputs: int
) -> tuple[str, str]:
    """The wrappers that Inductor writes for both halves, with the configuration that is set.

    No kernel is compiled, and the graphs stay as they are. Called where AOTAutograd asks for a
    partition.
    """
    inputs = _examples(forward)
    first, strides = _generate(forward, inputs, range(num_fwd_outputs), is_backward=False)
    results = next(iter(forward.graph.find_nodes(op="output"))).args[0]
    lies = {
        node.name: stride
        for node, stride in zip(cast("tuple[Any, ...]", results), strides, strict=False)
        if isinstance(node, fx.Node)
    }
    given: list[Any] = []
    for node in backward.graph.find_nodes(op="placeholder"):
        value, stride = node.meta["val"], lies.get(node.name)
        if isinstance(value, torch.Tensor) and stride is not None:
            value = value.as_strided(value.size(), stride)
        given.append(value)
    with _donated(forward, backward):
        second, _ = _generate(backward, given, (), is_backward=True)
    return first, second


def _generate(
    module: fx.GraphModule, inputs: Sequence[Any], visible: Sequence[int], *, is_backward: bool
) -> tuple[str, list[Any]]:
    """The wrapper of one half, and the strides of what it returns."""
    from torch._inductor import compile_fx, config
    from torch._inductor.graph import GraphLowering
    from torch._inductor.utils import BoxedBool

    module = copy_graph(module)
    output = next(iter(module.graph.find_nodes(op="output")))
    output.meta["user_visible_output_idxs"] = list(visible)
    thread, to_module = threading.get_ident(), GraphLowering.compile_to_module
    written: list[tuple[str, list[Any]]] = []

    def compile_to_module(self: Any) -> Any:
        if threading.get_ident() != thread:
            return to_module(self)
        code, _ = self.codegen()
        strides = [
            tuple(map(int, each.get_stride())) if each.maybe_get_stride() is not None else None
            for each in self.graph_outputs
        ]
        written.append((code.value, strides))
        raise _Generated

    off = {"fx_graph_cache": False, "fx_graph_remote_cache": False, "cpp_wrapper": False}
    with _lock:
        GraphLowering.compile_to_module = compile_to_module
        try:
            with config.patch(_known(config, off)), torch.no_grad():
                compile_fx.compile_fx_inner(
                    module,
                    inputs,
                    static_input_idxs=(),
                    cudagraphs=BoxedBool(False),
                    is_backward=is_backward,
                    is_inference=False,
                )
        except _Generated:
            pass
        finally:
            GraphLowering.compile_to_module = to_module
    return written[0]


@contextlib.contextmanager
def _donated(forward: fx.GraphModule, backward: fx.GraphModule) -> Generator[None, None, None]:
    """What a backward graph may write to of what it is given, as AOTAutograd says it."""
    from torch._functorch._aot_autograd import graph_compile

    context = TracingContext.try_get()
    about = None if context is None else context.fw_metadata
    if about is None or not torch._functorch.config.donated_buffer:
        yield
        return
    before = about.bw_donated_idxs
    about.bw_donated_idxs = graph_compile.collect_bw_donated_buffer_idxs(forward, backward, about)
    try:
        yield
    finally:
        about.bw_donated_idxs = before


@dataclass(frozen=True)
class Moment:
    """The bytes in use while a wrapper runs, and the op that runs then, where it is one."""

    nbytes: int
    op: fx.Node | None = None


def replay_pair(
    codes: tuple[str, str],
    forward: fx.GraphModule,
    backward: fx.GraphModule,
    num_fwd_outputs: int,
    size_of: Callable[[torch.Tensor], int],
    is_held: Callable[[torch.Tensor], bool],
) -> list[Moment]:
    """Run two generated wrappers on fake tensors, without their kernels, and note what is in use.

    `size_of` says what a new tensor counts for, `is_held` which gradients backward is given live to
    its end. What forward is given counts for nothing.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    meter = _meter(size_of)

    def fake(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        with mode:
            return torch.empty_strided(
                tuple(value.size()), tuple(value.stride()), dtype=value.dtype, device=value.device
            )

    inputs = [fake(value) for value in _examples(forward)]
    for value in inputs:
        meter.note(value, counts=False)
    with mode, meter:
        results = _loaded(codes[0])(list(inputs))
    names = [
        node.name if isinstance(node, fx.Node) else ""
        for node in cast(
            "tuple[Any, ...]", next(iter(forward.graph.find_nodes(op="output"))).args[0]
        )
    ]
    by_name = dict(zip(names, results, strict=True))
    held = list(results[:num_fwd_outputs])
    given: list[Any] = []
    for node in backward.graph.find_nodes(op="placeholder"):
        if node.name in by_name:
            given.append(by_name[node.name])
            continue
        value = fake(node.meta["val"])
        meter.note(value)
        if isinstance(value, torch.Tensor) and is_held(value):
            held.append(value)
        given.append(value)
        del value
    del results, by_name
    with mode, meter:
        gradients = _loaded(codes[1])(given)
    meter.moments.append(Moment(meter.live))
    del gradients, held
    return meter.moments


def _meter(size_of: Callable[[torch.Tensor], int]) -> Any:
    """A mode that notes the bytes of all storages made within it, as long as they live."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Meter(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.live = 0
            self.sizes: dict[int, int] = {}
            self.moments: list[Moment] = []

        def note(self, value: Any, *, counts: bool = True) -> bool:
            if not isinstance(value, torch.Tensor):
                return False
            storage = value.untyped_storage()
            key = storage._cdata
            if key in self.sizes:
                return False
            self.sizes[key] = size_of(value) if counts else 0
            self.live += self.sizes[key]
            weakref.finalize(storage, self.gone, key)
            return True

        def gone(self, key: int) -> None:
            self.live -= self.sizes.pop(key, 0)

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            results = result if isinstance(result, (tuple, list)) else (result,)
            is_new = [self.note(each) for each in results]
            if any(is_new):
                made_by = None
                if func is not torch.ops.aten.empty_strided.default:
                    made_by = _as_node(func, args, kwargs or {}, result)
                self.moments.append(Moment(self.live, made_by))
            return result

    return Meter()


def _as_node(func: Any, args: Any, kwargs: Any, result: Any) -> fx.Node:
    """A call of an op on fake tensors, as a node of a graph of its own."""
    from torch.utils import _pytree as pytree

    graph = fx.Graph()

    def given(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        node = graph.placeholder("given")
        node.meta["val"] = value
        return node

    args, kwargs = pytree.tree_map(given, (args, kwargs))
    node = graph.call_function(func, args, kwargs)
    node.meta["val"] = result
    return node


def _loaded(code: str) -> Callable[[list[Any]], Any]:
    """A generated wrapper whose kernels do nothing."""
    code = re.sub(r"^async_compile = AsyncCompile\(\)", "async_compile = KERNELS", code, flags=re.M)
    code = re.sub(r"^if __name__ == .__main__.:[\s\S]*", "", code, flags=re.M)
    namespace: dict[str, Any] = {"__name__": "replayed", "KERNELS": _NoKernels()}
    exec(compile(code, "wrapper", "exec"), namespace)
    for name in [name for name in namespace if name.startswith("empty_strided_")]:
        namespace[name] = _empty_on(name.removeprefix("empty_strided_"))
    namespace["reinterpret_tensor"] = reinterpret
    for name in ("assert_size_stride", "assert_alignment"):
        namespace[name] = _nothing
    return namespace["call"]


def _empty_on(device: str) -> Callable[..., torch.Tensor]:
    device = device.removesuffix("_pinned").removesuffix("_p2p")

    def empty(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(size, stride, dtype=dtype, device=device)

    return empty


def _nothing(*_args: Any, **_named: Any) -> None: ...


class _NoKernel:
    """In the place of a compiled kernel, which is called or has a `run`."""

    __call__ = run = staticmethod(_nothing)


class _NoKernels:
    """In the place of what compiles a wrapper's kernels."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return _nothing if name == "wait" else lambda *_args, **_named: _NoKernel()
