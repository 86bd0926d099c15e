"""The lines of a compiled wrapper as pieces: what runs in one, what it needs and what it leaves.

A piece is a kernel with the allocations of what it writes. A kernel that writes to a buffer that is
there already (in parts, or again) is one piece with the kernel that wrote it first: so each buffer
is written once by one piece, and a piece can be run again by itself.

Where they can't be moved together, because something between them needs the one and is needed by
the other, nothing between may still see what the later one changes: it writes to another part, as
what is concatenated does, or is the first to look at the buffer again. Then both run once, and what
reads what the later one wrote is given a token that it makes, a tensor of no elements. In all other
cases the later one writes to a copy, which takes the buffer's place from there on.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from fxremat.classify import draws_nothing, is_tagged_random, why_not_repeatable
from fxremat.errors import UnsupportedGraphError
from fxremat.inductor.parts import Part, are_apart, part_of
from fxremat.inductor_hooks import Kind, Layout, Line, Wrapper
from fxremat.measure.profile_ops import may_be_run
from fxremat.nodes import is_op, op_name, schema_arguments

_STREAM = re.compile(r"^(\w+) = get_raw_stream\(\d+\)$")
# One number that a kernel reads: a seed. Which one it is makes no difference to what it takes.
_ONE_NUMBER = re.compile(r"(ptr\d+)\[static_cast<int64_t>\(\d+L\)\]")


@dataclass(eq=False)
class Piece:
    """Lines that run as one; two are never equal.

    `reads` are the buffers and inputs that it is given, `makes` the buffers that it brings into
    being, `changes` the inputs that it writes to. `layouts` are those of what no line allocates.
    `touches` are the parts of buffers that it reads or writes, `origin` an op that it is for.
    `in_place` are buffers that it makes, each with one that it reads and could write it over.
    """

    name: str
    text: list[str]
    reads: dict[str, None]
    makes: dict[str, None]
    changes: dict[str, None]
    layouts: dict[str, Layout] = field(default_factory=dict[str, Layout])
    touches: list[tuple[str, Part | None]] = field(default_factory=list[tuple[str, "Part | None"]])
    key: str = ""
    once: str = ""
    ordered: bool = False
    draws: bool = False
    measurable: bool = True
    origin: fx.Node | None = None
    in_place: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def keeps_place(self) -> bool:
        """Whether it must not be moved among others."""
        return self.ordered or self.draws

    def join(self, later: Piece) -> None:
        """Take in what runs right after it."""
        self.name = f"{self.name}_and_{later.name}" if later.key else self.name
        self.text += later.text
        self.reads.update({name: None for name in later.reads if name not in self.makes})
        self.makes.update(later.makes)
        self.changes.update(later.changes)
        self.layouts.update(later.layouts)
        self.touches += later.touches
        self.origin = later.origin or self.origin
        self.key += later.key
        self.once = self.once or later.once
        self.ordered = self.ordered or later.ordered
        self.draws = self.draws or later.draws
        self.measurable = self.measurable and later.measurable
        self.in_place = {}  # One kernel may still read what another has written over.

    def rename(self, name: str, new: str) -> None:
        """Call a buffer by another name."""

        def renamed(names: dict[str, Any]) -> dict[str, Any]:
            return {new if each == name else each: value for each, value in names.items()}

        self.text = [re.sub(rf"\b{name}\b", new, text) for text in self.text]
        self.reads, self.makes = renamed(self.reads), renamed(self.makes)
        self.in_place = {
            new if made == name else made: new if over == name else over
            for made, over in self.in_place.items()
        }
        self.layouts = renamed(self.layouts)
        self.touches = [(new if at == name else at, part) for at, part in self.touches]


@dataclass(frozen=True)
class Alias:
    """Another name for a buffer, or for a part of one, and the lines that give it that name."""

    lines: tuple[str, ...]
    base: str


def pieces_of(wrapper: Wrapper, device_type: str) -> tuple[list[Piece], Mapping[str, Alias]]:
    """The pieces of a wrapper, in the order in which they run with nothing recomputed.

    And the names that are no buffers of their own. Raises `UnsupportedGraphError` with the name of
    what can't be read.
    """
    reader = _Reader(wrapper, device_type)
    return reader.run(), reader.aliases


def names_in(text: str) -> list[str]:
    """The names in a line of Python, in order, each once."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)]
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    return list(dict.fromkeys(node.id for node in nodes))


@dataclass
class _Reader:
    """Walks over the lines; `waiting` are allocations of buffers that nothing has written to."""

    wrapper: Wrapper
    device_type: str
    pieces: list[Piece] = field(default_factory=list[Piece])
    waiting: dict[str, str] = field(default_factory=dict[str, str])
    aliases: dict[str, Alias] = field(default_factory=dict[str, Alias])
    maker: dict[str, Piece] = field(default_factory=dict[str, Piece])
    parts: dict[str, Part | None] = field(default_factory=dict[str, "Part | None"])
    written: dict[str, list[tuple[Part | None, str]]] = field(
        default_factory=dict[str, "list[tuple[Part | None, str]]"]
    )

    def run(self) -> list[Piece]:
        for line in self.wrapper.lines:
            if line.kind is Kind.UNKNOWN or (line.kind is Kind.OP and line.views):
                raise _unread(line)
            if line.kind is Kind.ALLOCATE:
                self.waiting[line.makes] = "\n".join(line.text)
            elif line.kind is Kind.ALIAS:
                self._alias(line)
            elif line.kind is Kind.ITEM:
                self._item(line)
            elif line.kind is not Kind.STREAM:
                self._add(self._piece(line), line)
        return self.pieces

    def _alias(self, line: Line) -> None:
        source, part = line.views[0], part_of(line.text[0])
        self.parts[line.makes] = part and part.inside(self.parts.get(source))
        before = self.aliases[source].lines if source in self.aliases else ()
        self.aliases[line.makes] = Alias((*before, *line.text), self._base(source))

    def _base(self, name: str) -> str:
        return self.aliases[name].base if name in self.aliases else name

    def _item(self, line: Line) -> None:
        """One of several results belongs to the piece that made them all; of a view, it is one."""
        if line.views[0] in self.aliases:
            self._alias(line)
            return
        piece = self.maker[line.views[0]]
        piece.text += line.text
        piece.makes[line.makes] = None
        if line.layout is not None:
            piece.layouts[line.makes] = line.layout
        self.maker[line.makes] = piece

    def _piece(self, line: Line) -> Piece:
        """The piece of one kernel."""
        called = [text for text in line.text if not _STREAM.match(text)]
        touched = [name for text in called for name in names_in(text) if self._is_known(name)]
        prelude: list[str] = []
        reads: dict[str, None] = {}
        makes: dict[str, None] = {}
        for name in dict.fromkeys(touched):
            base = self._base(name)
            if base in self.waiting:
                prelude.append(self.waiting.pop(base))
                makes[base] = None
            elif base not in makes:
                reads[base] = None
        aliases = [name for name in dict.fromkeys(touched) if name in self.aliases]
        prelude += dict.fromkeys(text for name in aliases for text in self.aliases[name].lines)
        touches = [(self._base(name), self.parts.get(name)) for name in dict.fromkeys(touched)]
        for base, part in touches:
            for other, token in self.written.get(base, ()):
                if not are_apart(part, other):
                    reads[token] = None
        if line.makes:
            makes[line.makes] = None
        once, ordered = _why_once(line, self.device_type)
        draws = _draws(line)
        piece = Piece(
            name=_identifier(line.name),
            text=[*prelude, *called],
            reads=reads,
            makes=makes,
            changes={
                self._base(name): None for name in line.writes if self._base(name) not in makes
            },
            key=_key(line, called, touched),
            once=once,
            ordered=ordered,
            draws=draws,
            measurable=_is_measurable(line),
            touches=touches,
            origin=line.origin,
            in_place={
                made: over
                for made in makes
                if (over := self.wrapper.in_place.get(made, "")) in reads
            },
        )
        if line.makes and line.layout is not None:
            piece.layouts[line.makes] = line.layout
        return piece

    def _is_known(self, name: str) -> bool:
        return (
            name in self.waiting
            or name in self.maker
            or name in self.aliases
            or name in self.wrapper.inputs
        )

    def _add(self, piece: Piece, line: Line) -> None:
        """Put a piece at the end, together with those whose buffers it changes."""
        again = [name for name in piece.changes if name in self.maker]
        for name in again:
            del piece.changes[name]
        self.pieces.append(piece)
        for name in piece.makes:
            self.maker[name] = piece
        target = piece
        for name in again:
            first = self.maker[name]
            if first is target:
                continue
            if self._can_join(first, target):
                target = self._together(first, target)
            elif target is piece and self._is_unseen(first, name, line):
                self._in_order(first, piece, name, line)
            else:
                self._on_a_copy(target, name)

    def _can_join(self, first: Piece, second: Piece) -> bool:
        return self._can_sink(first, second) or self._can_rise(first, second)

    def _between(self, first: Piece, second: Piece) -> list[Piece]:
        return self.pieces[self.pieces.index(first) + 1 : self.pieces.index(second)]

    def _can_sink(self, first: Piece, second: Piece) -> bool:
        """Whether nothing needs the first piece before the second."""
        read = {name for piece in self._between(first, second) for name in piece.reads}
        return not first.keeps_place and not first.changes and not read.intersection(first.makes)

    def _can_rise(self, first: Piece, second: Piece) -> bool:
        """Whether what is between makes nothing that the second needs, and reads nothing of it."""
        between = self._between(first, second)
        made = {name for piece in between for name in piece.makes}
        read = {name for piece in between for name in piece.reads}
        if second.keeps_place or second.changes or read.intersection(first.makes):
            return False
        return not made.intersection(second.reads)

    def _together(self, first: Piece, second: Piece) -> Piece:
        """Join two pieces, the earlier one moved down to the later, or the later one up."""
        if self.pieces.index(first) > self.pieces.index(second):
            first, second = second, first
        if self._can_sink(first, second):
            self.pieces.remove(first)
            self.pieces.insert(self.pieces.index(second), first)
        self.pieces.remove(second)
        first.join(second)
        for name in second.makes:
            self.maker[name] = first
        return first

    def _written_parts(self, name: str, line: Line) -> list[Part | None]:
        return [self.parts.get(each) for each in line.writes if self._base(each) == name]

    def _is_unseen(self, first: Piece, name: str, line: Line) -> bool:
        """Whether what a line writes to of a buffer is what nobody looked at since its maker.

        The maker may have written to it: then it is a step of its own, which comes later.
        """
        others = self._between(first, self.pieces[-1])
        touched = [part for piece in others for at, part in piece.touches if at == name]
        return all(are_apart(a, b) for a in self._written_parts(name, line) for b in touched)

    def _in_order(self, first: Piece, second: Piece, name: str, line: Line) -> None:
        """Let two pieces write to one buffer, one after the other."""
        token = f"{name}_written_{len(self.pieces)}"
        parts = self._written_parts(name, line)
        self.written.setdefault(name, []).extend((part, token) for part in parts)
        first.once = first.once or "makes what a later kernel writes to"
        second.once = second.once or "writes to what another kernel made"
        second.makes[token] = None
        second.layouts[token] = Layout((0,), (1,), torch.float32, torch.device("cpu"))
        second.text.append(f"{token} = torch.empty(0)")

    def _on_a_copy(self, piece: Piece, name: str) -> None:
        """Let a piece write to a copy of a buffer: all before it know the buffer by another name.

        Its own name is the copy's, so that what comes later needn't change.
        """
        old = f"{name}_before_{self.pieces.index(piece)}"
        for earlier in self.pieces[: self.pieces.index(piece)]:
            earlier.rename(name, old)
        self.maker[old] = self.maker[name]
        self.maker[name] = piece
        tokens = [token for _, token in self.written.pop(name, ())]
        reads = (old if read == name else read for read in piece.reads)
        piece.reads = dict.fromkeys([*reads, *tokens])
        piece.makes[name] = None
        piece.text[:0] = [f"{name} = torch.empty_like({old})", f"{name}.copy_({old})"]
        piece.key += " on a copy"


def _unread(line: Line) -> UnsupportedGraphError:
    what = "returns a part of its argument" if line.kind is Kind.OP else "is not known"
    return UnsupportedGraphError(
        f"Inductor's wrapper has a line that can't be planned: {line.name or line.text} {what}. "
        "Use executor='eager', or keep that part out of the optimized function"
    )


def _identifier(name: str) -> str:
    """The last part of a kernel's dotted name, without what is no identifier."""
    parts = [part for part in name.split(".") if part not in ("default", "out")]
    return re.sub(r"\W", "_", parts[-1] if parts else name) or "kernel"


def _key(line: Line, text: Sequence[str], touched: Iterable[str]) -> str:
    """What a line does, whatever its buffers are called, its kernel, and which seed it reads."""
    names = {name: f"b{k}" for k, name in enumerate(dict.fromkeys([*touched, line.makes]))}
    called = re.sub(r"\b\w+\b", lambda m: names.get(m[0], m[0]), ";".join(text))
    if line.kind is Kind.KERNEL:
        called = called.replace(line.name, "kernel")
    source = _ONE_NUMBER.sub(r"\1[0]", line.source.replace(line.name, "kernel"))
    return f"{called}{{{source}}}"


def _is_measurable(line: Line) -> bool:
    if line.kind is Kind.KERNEL or line.op is None:
        return True
    return may_be_run(line.op)


def _draws(line: Line) -> bool:
    """Whether a kernel draws from a generator: those that Inductor writes read drawn seeds."""
    if line.op is None or not is_tagged_random(line.op):
        return False
    return not draws_nothing(op_name(line.op), _arguments(line))


def _why_once(line: Line, device_type: str) -> tuple[str, bool]:
    """Why a kernel must not run again, empty where it may; and whether its place is kept."""
    if line.atomic:
        return "adds up in the order of the threads", False
    if line.op is None:
        return "", False
    if _draws(line):
        # Inductor's own seeds, of a few bytes, are kept.
        is_seeds = line.kind is Kind.OUT and op_name(line.op) == "randint"
        return ("draws seeds" if is_seeds else ""), False
    if line.op.namespace not in ("aten", "prims"):
        return "custom op: not known to be deterministic and free of effects", True
    return why_not_repeatable(op_name(line.op), device_type), False


def _arguments(line: Line) -> Callable[[str], object]:
    """What a call gives to the arguments of its op that are constants."""
    calls = [node for text in line.text for node in ast.walk(ast.parse(text))]
    call = next(node for node in calls if isinstance(node, ast.Call))
    given: dict[str, object] = {}
    if is_op(line.op):
        for schema, value in zip(schema_arguments(line.op), call.args, strict=False):
            given[schema.name] = _constant(value)
        for keyword in call.keywords:
            given[keyword.arg or ""] = _constant(keyword.value)
        for schema in schema_arguments(line.op):
            given.setdefault(schema.name, schema.default_value)
    return given.get


def _constant(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return node
