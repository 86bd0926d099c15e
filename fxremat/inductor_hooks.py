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
import threading
from collections.abc import Callable, Generator, Sequence
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
    """

    lines: tuple[Line, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    namespace: dict[str, Any]
    aligned: tuple[int, ...] = ()


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

    with _recording() as recorded:
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
    )


@dataclass
class _Recorded:
    """What one compilation made: the lines of its wrapper, and the module with its kernels."""

    thread: int
    wrapper: _Lines | None = None
    module: Any = None


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
