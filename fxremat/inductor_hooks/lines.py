"""What Inductor compiles, as lines of a wrapper: its own classes are read here."""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, cast

import torch
from torch import fx

from fxremat.torch_hooks import LEAVE_SEEDS_ON_CPU, SEED_OUTPUTS

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


@dataclass
class Recorded:
    """What one compilation made: the lines of its wrapper, and the module with its kernels."""

    thread: int
    wrapper: _Lines | None = None
    module: Any = None
    in_place: dict[str, str] = field(default_factory=dict[str, str])


LOCK = threading.RLock()


@contextlib.contextmanager
def recording() -> Generator[Recorded, None, None]:
    """Listen to the one graph that is compiled inside, on this thread."""
    from torch._inductor.codegen.wrapper import PythonWrapperCodegen
    from torch._inductor.graph import GraphLowering

    recorded = Recorded(threading.get_ident())
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

    with LOCK:
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
        views = tuple(node.get_inputs_that_alias_output())
        if views and _is_view(_op_of(node)):
            return Line(Kind.ALIAS, text, makes=node.get_name(), views=views)
        return Line(
            Kind.OP,
            text,
            node.get_kernel_name(),
            makes=node.get_name(),
            layout=_layout_of(node),
            op=_op_of(node),
            views=views,
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
    copied = _COPY.fullmatch(stripped)
    if copied is not None:
        return Line(Kind.OUT, text, "copy_", writes=(copied[1],))
    changed = _IN_PLACE.match(stripped)
    if changed is not None:
        _, namespace, name, overload, buffer = changed.groups()
        op = getattr(getattr(getattr(torch.ops, namespace), name), overload)
        if _changes_only_first(op):
            return Line(Kind.OUT, text, changed[1], writes=(buffer,), op=op)
    if " = get_raw_stream(" in stripped:
        return Line(Kind.STREAM, text)
    return Line(Kind.UNKNOWN, text, stripped)


# Of complex numbers, which no kernel of Inductor's copies.
_COPY = re.compile(r"(\w+)\.copy_\(\w+, (?:True|False)\)")
# An op of the dispatcher that writes to its first argument, a whole buffer.
_IN_PLACE = re.compile(r"(torch\.ops\.(\w+)\.(\w+_)\.(\w+))\((\w+)[,)]")


def _changes_only_first(op: Any) -> bool:
    """Whether an op writes to its first argument and to nothing else."""
    infos = (each.alias_info for each in op._schema.arguments)
    first, *others = (info is not None and info.is_write for info in infos)
    return first and not any(others)


def _is_view(op: Any) -> bool:
    """Whether an op returns a part of its argument; one made of others (reshape) may copy it."""
    return op is not None and op.is_view and not op._can_decompose()


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
