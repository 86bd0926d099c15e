"""Small wrappers, and the pieces that they are read as."""

from __future__ import annotations

import pytest
import torch

import fxremat
from fxremat.inductor.pieces import Piece, pieces_of
from fxremat.inductor_hooks import Kind, Line, Wrapper

aten = torch.ops.aten


def allocate(name: str) -> Line:
    return Line(
        Kind.ALLOCATE, (f"{name} = empty_strided_cpu((8, 4), (4, 1), torch.float32)",), makes=name
    )


def call(name: str, *arguments: str, writes: tuple[str, ...]) -> Line:
    text = f"{name}({', '.join(arguments)})"
    return Line(Kind.KERNEL, (text,), name, writes=writes, source=name)


def part(name: str, whole: str, offset: int) -> Line:
    text = f"{name} = reinterpret_tensor({whole}, (8, 2), (4, 1), {offset})  # alias"
    return Line(Kind.ALIAS, (text,), makes=name, views=(whole,))


def read(*lines: Line, device: str = "cpu") -> list[Piece]:
    return pieces_of(Wrapper(lines, ("x", "y"), (), {}), device)[0]


def test_a_kernel_with_what_it_writes_to() -> None:
    first, second = read(
        allocate("a"),
        call("one", "x", "a", writes=("a",)),
        allocate("b"),
        call("two", "a", "b", writes=("b",)),
    )
    assert (list(first.reads), list(first.makes)) == (["x"], ["a"])
    assert first.text == ["a = empty_strided_cpu((8, 4), (4, 1), torch.float32)", "one(x, a)"]
    assert (list(second.reads), list(second.makes)) == (["a"], ["b"])


def test_what_writes_again_is_one_piece() -> None:
    """The zeros of a buffer move down to what adds to it, past what needs neither."""
    found = read(
        allocate("a"),
        Line(Kind.OUT, ("a.zero_()",), "zero_", writes=("a",)),
        allocate("b"),
        call("index", "x", "b", writes=("b",)),
        call("add", "b", "a", writes=("a",)),
    )
    assert [piece.name for piece in found] == ["index", "zero__and_add"]
    assert list(found[1].makes) == ["a"]
    assert list(found[1].reads) == ["b"]


def test_parts_that_are_apart_are_written_one_by_one() -> None:
    """What reads the later part, or all, waits for its writer; a reader of the first doesn't."""
    lines = (
        allocate("whole"),
        part("left", "whole", 0),
        call("first", "x", "left", writes=("left",)),
        allocate("b"),
        call("between", "left", "b", writes=("b",)),
        part("right", "whole", 2),
        call("second", "b", "right", writes=("right",)),
        allocate("c"),
        call("all", "whole", "c", writes=("c",)),
        allocate("d"),
        call("one", "left", "d", writes=("d",)),
    )
    first, between, second, everything, one = read(*lines)
    (token,) = set(second.makes) - {"whole"}
    assert first.once
    assert second.once
    assert not between.once
    assert set(second.reads) == {"b", "whole"}
    assert set(everything.reads) == {"whole", token}
    assert set(one.reads) == {"whole"}


def test_what_writes_to_a_buffer_that_was_read_writes_to_a_copy() -> None:
    first, between, overwrite, last = read(
        allocate("a"),
        call("first", "x", "a", writes=("a",)),
        allocate("b"),
        call("between", "a", "b", writes=("b",)),
        call("overwrite", "b", "a", writes=("a",)),
        allocate("c"),
        call("last", "a", "c", writes=("c",)),
    )
    (old,) = first.makes
    assert set(between.reads) == {old}
    assert set(overwrite.reads) == {old, "b"}
    assert set(overwrite.makes) == {"a"}
    assert overwrite.text == [f"a = torch.empty_like({old})", f"a.copy_({old})", "overwrite(b, a)"]
    assert set(last.reads) == {"a"}
    assert not any(piece.once for piece in (first, between, overwrite, last))


def test_what_writes_to_a_buffer_that_nobody_read_writes_to_it() -> None:
    """The zeros come of a kernel that makes more, which something between needs."""
    zeros, between, add, last = read(
        allocate("a"),
        allocate("b"),
        call("zeros", "x", "a", "b", writes=("a", "b")),
        allocate("c"),
        call("between", "b", "c", writes=("c",)),
        call("add", "c", "a", writes=("a",)),
        allocate("d"),
        call("last", "a", "d", writes=("d",)),
    )
    assert zeros.once
    assert add.once
    assert not between.once
    assert set(add.reads) == {"a", "c"}
    assert set(last.reads) == {"a", *add.makes}


def test_inputs_that_are_written_to() -> None:
    (piece,) = read(call("update", "x", "y", writes=("y",)))
    assert list(piece.changes) == ["y"]


def test_unknown_lines_are_refused_by_name() -> None:
    with pytest.raises(fxremat.UnsupportedGraphError, match="ConditionalLine"):
        read(Line(Kind.UNKNOWN, ("if x:",), "ConditionalLine"))


def op(target: object, text: str) -> Line:
    return Line(Kind.OP, (text,), str(target), makes="a", op=target)


def test_what_runs_once() -> None:
    """Seeds and other draws keep their place; sums in the order of threads are never repeated."""
    seeds = Line(
        Kind.OUT,
        ("aten.randint.low_out(0, 9, [2], out=a)",),
        "aten.randint.low_out",
        writes=("a",),
        op=aten.randint.low_out,
    )
    (piece,) = read(allocate("a"), seeds)
    assert piece.once == "draws seeds"
    assert piece.draws
    attention = aten._scaled_dot_product_flash_attention_for_cpu.default
    name = "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default"
    for probability, draws in ((0.0, False), (0.5, True)):
        (piece,) = read(op(attention, f"a = {name}(x, x, y, {probability})"))
        assert piece.draws is draws
        assert not piece.once
    backward = op(aten.embedding_dense_backward.default, "a = f(x, y, 8, -1, False)")
    assert not read(backward)[0].once
    assert read(backward, device="cuda")[0].once == "not deterministic"
    added = Line(Kind.KERNEL, ("k(x, a)",), "k", writes=("a",), source="atomic_add(", atomic=True)
    assert read(allocate("a"), added)[0].once == "adds up in the order of the threads"


def test_an_op_that_returns_a_view_is_a_name_for_its_argument() -> None:
    """As of complex numbers: what it gives is one of several results by its looks."""
    (piece,) = read(
        Line(Kind.ALIAS, ("a = torch.ops.aten.unsqueeze.default(x, 1)",), makes="a", views=("x",)),
        Line(Kind.ITEM, ("b = a",), makes="b", views=("a",)),
        allocate("c"),
        call("one", "b", "c", writes=("c",)),
    )
    assert (list(piece.reads), list(piece.makes)) == (["x"], ["c"])
    assert piece.text[1:3] == ["a = torch.ops.aten.unsqueeze.default(x, 1)", "b = a"]


def test_only_inductors_seeds_are_drawn_once() -> None:
    def drawn(name: str, op: object) -> Piece:
        (piece,) = read(
            allocate("a"), Line(Kind.OUT, (f"{name}(a, 0.5)",), name, writes=("a",), op=op)
        )
        return piece

    assert drawn("bernoulli_", aten.bernoulli_.float).draws
    assert not drawn("bernoulli_", aten.bernoulli_.float).once
    assert drawn("randint", aten.randint.low_out).once == "draws seeds"
