"""The rematerialization problem: a DAG of ops over values, in the order the program runs them.

A problem is what every solver takes and what `fxremat` lowers a joint graph to. It knows nothing
of torch: an op is a cost and the values it reads and makes; a value is a size. The JSON form
(``fxremat-problem/1``) is the same data with indices for references.

Memory model (executed by `simulate`): problem inputs are resident outside the count; an op's
outputs are allocated while its inputs are live; a value is freed after its last use before its
next computation; outputs of the problem live to the end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from fxremat_solvers.errors import ProblemFormatError

PROBLEM_FORMAT = "fxremat-problem/1"

_BYTES_BELOW = 2**53
"""What all values and a workspace add up to stays exact as a float, too."""

_COSTS = (1e-100, 1e100)
"""What the costs may add up to where it is not zero: sums and ratios of them stay finite."""


@dataclass(frozen=True)
class Value:
    """A block of memory (in torch: a storage). `nbytes` is its size in bytes, 0 or more."""

    name: str
    nbytes: int


@dataclass(frozen=True)
class Op:
    """One operation.

    `inputs` and `outputs` are indices into the problem's values. `cost` is its time in any unit
    (all ops of a problem share it; `fxremat` uses seconds). `workspace_bytes` are allocated while
    the op runs and freed before it returns. An op with `recomputable=False` runs exactly once.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    cost: float
    workspace_bytes: int = 0
    recomputable: bool = True


@dataclass(frozen=True)
class RematProblem:
    """Ops in baseline order over values.

    `inputs` are the values that exist before the first op and are never counted; `outputs` the
    values that must be live at the end. `first_backward_op` is the index of the first op of the
    backward part, or None where there is none; it guides solvers and constrains nothing.

    Raises `ProblemFormatError` when the baseline order can't be executed.
    """

    ops: tuple[Op, ...]
    values: tuple[Value, ...]
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    first_backward_op: int | None = None

    def __post_init__(self) -> None:
        _validate(self)

    @cached_property
    def producer(self) -> tuple[int, ...]:
        """The op that makes each value; -1 for problem inputs."""
        producer = [-1] * len(self.values)
        for index, op in enumerate(self.ops):
            for value in op.outputs:
                producer[value] = index
        return tuple(producer)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """The ops that read each value, in baseline order, each once."""
        consumers: list[list[int]] = [[] for _ in self.values]
        for index, op in enumerate(self.ops):
            for value in dict.fromkeys(op.inputs):
                consumers[value].append(index)
        return tuple(tuple(readers) for readers in consumers)

    @cached_property
    def baseline_cost(self) -> float:
        """Cost of running every op once."""
        return math.fsum(op.cost for op in self.ops)

    @cached_property
    def cost_scale(self) -> float:
        """What differences of cost are measured by: the baseline's cost.

        Ops that must run once don't drown the others in it: at most ten times what those cost.
        """
        again = math.fsum(op.cost for op in self.ops if op.recomputable)
        return min(self.baseline_cost, 10 * again)

    @cached_property
    def cost_unit(self) -> float:
        """What any cost paid again is a multiple of; 0 where not all those costs are whole."""
        costs = [float(op.cost) for op in self.ops if op.recomputable]
        if not all(cost.is_integer() and cost < 2**40 for cost in costs):
            return 0.0
        return float(math.gcd(*map(int, costs)))

    @cached_property
    def counted_bytes(self) -> tuple[int, ...]:
        """What each value counts while it is live: its bytes, 0 for problem inputs."""
        inputs = set(self.inputs)
        return tuple(0 if v in inputs else value.nbytes for v, value in enumerate(self.values))

    @cached_property
    def own_bytes(self) -> tuple[int, ...]:
        """What each op takes itself: what it reads and makes, each once, and its workspace."""
        counted = self.counted_bytes
        return tuple(
            op.workspace_bytes + sum(counted[v] for v in {*op.inputs, *op.outputs})
            for op in self.ops
        )

    def to_json(self) -> str:
        """This problem as a ``fxremat-problem/1`` document."""
        document = {
            "format": PROBLEM_FORMAT,
            "values": [{"name": v.name, "nbytes": v.nbytes} for v in self.values],
            "ops": [
                {
                    "name": op.name,
                    "inputs": list(op.inputs),
                    "outputs": list(op.outputs),
                    "cost": op.cost,
                    "workspace_bytes": op.workspace_bytes,
                    "recomputable": op.recomputable,
                }
                for op in self.ops
            ],
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "first_backward_op": self.first_backward_op,
        }
        return json.dumps(document)

    @staticmethod
    def from_json(text: str) -> RematProblem:
        """Parse a ``fxremat-problem/1`` document; `ProblemFormatError` names the bad field."""
        document = parse_document(text, PROBLEM_FORMAT)
        values = tuple(
            Value(
                name=_string(entry, "name", at),
                nbytes=_integer(_field(entry, "nbytes", at), f"{at}.nbytes"),
            )
            for at, entry in _objects(document, "values")
        )
        ops = tuple(
            Op(
                name=_string(entry, "name", at),
                inputs=integer_list(_field(entry, "inputs", at), f"{at}.inputs"),
                outputs=integer_list(_field(entry, "outputs", at), f"{at}.outputs"),
                cost=_number(_field(entry, "cost", at), f"{at}.cost"),
                workspace_bytes=_integer(entry.get("workspace_bytes", 0), f"{at}.workspace_bytes"),
                recomputable=_boolean(entry.get("recomputable", True), f"{at}.recomputable"),
            )
            for at, entry in _objects(document, "ops")
        )
        first_backward = document.get("first_backward_op")
        return RematProblem(
            ops=ops,
            values=values,
            inputs=integer_list(_field(document, "inputs", ""), "inputs"),
            outputs=integer_list(_field(document, "outputs", ""), "outputs"),
            first_backward_op=None
            if first_backward is None
            else _integer(first_backward, "first_backward_op"),
        )


def _validate(problem: RematProblem) -> None:
    n_values, n_ops = len(problem.values), len(problem.ops)
    for i, value in enumerate(problem.values):
        if value.nbytes < 0:
            raise ProblemFormatError(f"values[{i}].nbytes is {value.nbytes}: it must be 0 or more")
    defined = bytearray(n_values)
    for field, indices in (("inputs", problem.inputs), ("outputs", problem.outputs)):
        _check_indices(field, indices, n_values)
        if len(set(indices)) != len(indices):
            raise ProblemFormatError(f"{field} names a value twice")
    for value in problem.inputs:
        defined[value] = 1
    for i, op in enumerate(problem.ops):
        _check_indices(f"ops[{i}].inputs", op.inputs, n_values)
        _check_indices(f"ops[{i}].outputs", op.outputs, n_values)
        if not (math.isfinite(op.cost) and op.cost >= 0):
            raise ProblemFormatError(
                f"ops[{i}].cost is {op.cost}: it must be a finite number, 0 or more"
            )
        if op.workspace_bytes < 0:
            raise ProblemFormatError(
                f"ops[{i}].workspace_bytes is {op.workspace_bytes}: it must be 0 or more"
            )
        for k, value in enumerate(op.inputs):
            if not defined[value]:
                raise ProblemFormatError(
                    f"ops[{i}].inputs[{k}]: value {value} ({problem.values[value].name!r}) is read "
                    "before any op makes it; ops must be in an executable order"
                )
        for k, value in enumerate(op.outputs):
            if defined[value]:
                raise ProblemFormatError(
                    f"ops[{i}].outputs[{k}]: value {value} ({problem.values[value].name!r}) "
                    "already exists; a value is a problem input or the output of exactly one op"
                )
            defined[value] = 1
    for k, value in enumerate(problem.outputs):
        if not defined[value]:
            raise ProblemFormatError(f"outputs[{k}]: value {value} is made by no op")
    boundary = problem.first_backward_op
    if boundary is not None and not 0 <= boundary <= n_ops:
        raise ProblemFormatError(f"first_backward_op is {boundary}: expected null or 0..{n_ops}")
    _check_totals(problem)


def _check_totals(problem: RematProblem) -> None:
    total = sum(value.nbytes for value in problem.values)
    total += max((op.workspace_bytes for op in problem.ops), default=0)
    if total >= _BYTES_BELOW:
        raise ProblemFormatError(
            "values[...].nbytes and the largest ops[...].workspace_bytes add up to 2**53 or more: "
            "use a larger unit than bytes, for them and for the budget"
        )
    cost, (least, most) = sum(op.cost for op in problem.ops), _COSTS
    if cost and not least <= cost <= most:
        raise ProblemFormatError(
            f"ops[...].cost add up to {cost}: it must be 0 or between {least} and {most}; "
            "use another unit"
        )


def _check_indices(field: str, indices: Sequence[int], count: int) -> None:
    for k, index in enumerate(indices):
        if not 0 <= index < count:
            raise ProblemFormatError(f"{field}[{k}] is {index}: expected 0..{count - 1}")


def parse_document(text: str, expected_format: str) -> dict[str, Any]:
    """The JSON object in `text`, after checking that its ``format`` is `expected_format`."""
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise ProblemFormatError(f"not a JSON document: {error}") from error
    if not isinstance(document, dict):
        raise ProblemFormatError("the document must be a JSON object")
    document = cast("dict[str, Any]", document)
    if document.get("format") != expected_format:
        raise ProblemFormatError(
            f"format is {document.get('format')!r}: expected {expected_format!r}"
        )
    return document


def integer_list(value: object, at: str) -> tuple[int, ...]:
    """`value` as a tuple of integers; `at` names the field in errors."""
    if not isinstance(value, list):
        raise ProblemFormatError(f"{at} must be a list of integers")
    items = cast("list[object]", value)
    return tuple(_integer(item, f"{at}[{k}]") for k, item in enumerate(items))


def _field(entry: dict[str, Any], key: str, at: str) -> object:
    if key not in entry:
        raise ProblemFormatError(f"{at + '.' if at else ''}{key} is missing")
    return entry[key]


def _objects(document: dict[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    entries = _field(document, key, "")
    if not isinstance(entries, list):
        raise ProblemFormatError(f"{key} must be a list of objects")
    checked: list[tuple[str, dict[str, Any]]] = []
    for k, entry in enumerate(cast("list[object]", entries)):
        if not isinstance(entry, dict):
            raise ProblemFormatError(f"{key}[{k}] must be an object")
        checked.append((f"{key}[{k}]", cast("dict[str, Any]", entry)))
    return checked


def _string(entry: dict[str, Any], key: str, at: str) -> str:
    value = _field(entry, key, at)
    if not isinstance(value, str):
        raise ProblemFormatError(f"{at}.{key} must be a string")
    return value


def _integer(value: object, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProblemFormatError(f"{at} is {value!r}: it must be an integer")
    return value


def _number(value: object, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ProblemFormatError(f"{at} is {value!r}: it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ProblemFormatError(f"{at} is too large a number") from error


def _boolean(value: object, at: str) -> bool:
    if not isinstance(value, bool):
        raise ProblemFormatError(f"{at} is {value!r}: it must be true or false")
    return value
