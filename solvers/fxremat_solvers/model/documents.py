"""The JSON documents: ``fxremat-problem/2`` (and 1, to read), ``fxremat-schedule/1``.

Fields are checked as they are read, and a fault is named with its place, ``$.ops[3].cost``.
Version 1 of a problem has `recomputable` where version 2 has `reruns`: such an op runs again as it
ran first.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from fxremat_solvers.errors import ProblemFormatError

PROBLEM_FORMAT = "fxremat-problem/2"
OLD_PROBLEM_FORMAT = "fxremat-problem/1"
SCHEDULE_FORMAT = "fxremat-schedule/1"


class _Head(msgspec.Struct):
    format: object = None


class _Value(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    nbytes: int
    lazy: bool = False


class _Rerun(msgspec.Struct, forbid_unknown_fields=True):
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    cost: float
    workspace_bytes: int = 0


class _FirstRun(msgspec.Struct):
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    cost: float
    workspace_bytes: int = 0


class _Op(_FirstRun, forbid_unknown_fields=True):
    reruns: tuple[_Rerun, ...] = ()


class ProblemDocument(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The fields of a problem; `records` makes its values and ops of them."""

    format: str = PROBLEM_FORMAT
    values: tuple[_Value, ...]
    ops: tuple[_Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    first_backward_op: int | None = None


class _OldValue(msgspec.Struct):
    name: str
    nbytes: int


class _OldOp(_FirstRun):
    recomputable: bool = True


class _OldProblem(msgspec.Struct):
    values: tuple[_OldValue, ...]
    ops: tuple[_OldOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    first_backward_op: int | None = None


class _Schedule(msgspec.Struct):
    format: str
    ops: tuple[int, ...]


_Document = TypeVar("_Document", bound=msgspec.Struct)
_Record = TypeVar("_Record")


def problem_document(problem: object) -> str:
    """What has a problem's fields as a ``fxremat-problem/2`` document."""
    document = msgspec.convert(problem, ProblemDocument, from_attributes=True)
    return msgspec.json.encode(document).decode()


def parse_problem(text: str) -> ProblemDocument:
    """A document of either version, as one of version 2; `ProblemFormatError` names the field."""
    if _format(text, PROBLEM_FORMAT, OLD_PROBLEM_FORMAT) == PROBLEM_FORMAT:
        return _decoded(text, ProblemDocument)
    old = _decoded(text, _OldProblem)
    document = msgspec.convert(old, ProblemDocument, from_attributes=True)
    for op, before in zip(document.ops, old.ops, strict=True):
        if before.recomputable:  # it runs again as it ran first
            op.reruns = (msgspec.convert(op, _Rerun, from_attributes=True),)
    return document


def records(of: object, kind: type[_Record]) -> tuple[_Record, ...]:
    """Parts of a document as what has the same fields."""
    return msgspec.convert(of, tuple[kind, ...], from_attributes=True)


def schedule_document(ops: tuple[int, ...]) -> str:
    """The ops of a schedule as a ``fxremat-schedule/1`` document."""
    return msgspec.json.encode(_Schedule(SCHEDULE_FORMAT, ops)).decode()


def parse_schedule(text: str) -> tuple[int, ...]:
    """The ops of a schedule's document; `ProblemFormatError` names the bad field."""
    _format(text, SCHEDULE_FORMAT)
    return _decoded(text, _Schedule).ops


def _format(text: str, *known: str) -> str:
    """The format that a document says it has; one of `known`."""
    name = _decoded(text, _Head).format
    if not isinstance(name, str) or name not in known:
        raise ProblemFormatError(f"$.format is {name!r}: expected {' or '.join(map(repr, known))}")
    return name


def _decoded(text: str, kind: type[_Document]) -> _Document:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        at = where.strip("`") or "$"
        raise ProblemFormatError(f"{at}: {what[:1].lower()}{what[1:]}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ProblemFormatError(f"not a JSON document: {error}") from error
