"""The rematerialization problem: a DAG of ops over values, in the order the program runs them.

A problem is what every solver takes and what `fxremat` lowers a joint graph to. It knows nothing
of torch: a run of an op is a cost and the values it reads and makes; a value is a size.
`documents` has the JSON form (``fxremat-problem/2``), the same data with indices for references.

Memory model (executed by `simulate`): problem inputs are resident outside the count; an op's
outputs are allocated while its inputs are live; a value is freed after its last use before its
next computation; outputs of the problem live to the end. A lazy value takes memory only where a
later step reads it before its next computation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fxremat_solvers.errors import ProblemFormatError, SeveralRerunsError
from fxremat_solvers.model.documents import parse_problem, problem_document, records

_BYTES_BELOW = 2**53
"""What all values and a workspace add up to stays exact as a float, too."""

_COSTS = (1e-100, 1e100)
"""What the costs may add up to where it is not zero: sums and ratios of them stay finite."""


@dataclass(frozen=True)
class Value:
    """A block of memory (in torch: a storage). `nbytes` is its size in bytes, 0 or more.

    A `lazy` value is allocated by the run that makes it only if a later step reads it before it
    is made again; else it takes nothing, not even while that run goes on.
    """

    name: str
    nbytes: int
    lazy: bool = False


@dataclass(frozen=True)
class Rerun:
    """A way to run an op again; the fields are those of `Op`.

    It makes some of what the op's first run makes, and reads nothing that it makes itself. Its
    inputs are problem inputs, values of earlier ops, or what the op's own first run alone makes.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    cost: float
    workspace_bytes: int = 0


@dataclass(frozen=True)
class Op:
    """One operation: its first run, and the ways in which it may run again.

    `inputs` and `outputs` are indices into the problem's values. `cost` is its time in any unit
    (all ops of a problem share it; `fxremat` uses seconds). `workspace_bytes` are allocated while
    the op runs and freed before it returns. An op without `reruns` runs exactly once.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    cost: float
    workspace_bytes: int = 0
    reruns: tuple[Rerun, ...] = ()

    @property
    def recomputable(self) -> bool:
        """Whether it may run more than once."""
        return bool(self.reruns)

    @property
    def first_run(self) -> Rerun:
        """The first run, as a rerun that would do the same."""
        return Rerun(self.inputs, self.outputs, self.cost, self.workspace_bytes)


def plain_op(
    name: str,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    cost: float,
    workspace_bytes: int = 0,
    recomputable: bool = True,
) -> Op:
    """An op each of whose runs equals its first one, or with `recomputable=False` the only one."""
    reruns = (Rerun(inputs, outputs, cost, workspace_bytes),) if recomputable else ()
    return Op(name, inputs, outputs, cost, workspace_bytes, reruns)


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
        """The ops whose first runs read each value, in baseline order, each once."""
        return _readers(len(self.values), [op.inputs for op in self.ops])

    @cached_property
    def reruns(self) -> tuple[Rerun, ...]:
        """How each op runs after its first run; its first run itself where it never does.

        Raises `SeveralRerunsError` where an op has more than one rerun: solvers take one.
        """
        for k, op in enumerate(self.ops):
            if len(op.reruns) > 1:
                raise SeveralRerunsError(
                    f"ops[{k}] ({op.name}) has {len(op.reruns)} reruns: the format allows it, "
                    "these solvers take one rerun an op; leave the others out"
                )
        return tuple(op.reruns[0] if op.reruns else op.first_run for op in self.ops)

    @cached_property
    def differing(self) -> frozenset[int]:
        """The ops whose reruns differ from their first run."""
        pairs = enumerate(zip(self.ops, self.reruns, strict=True))
        return frozenset(k for k, (op, again) in pairs if again != op.first_run)

    @cached_property
    def rerun_consumers(self) -> tuple[tuple[int, ...], ...]:
        """The ops that read each value when they run again, in baseline order, each once."""
        if not self.differing:
            return self.consumers
        return _readers(len(self.values), [again.inputs for again in self.reruns])

    @cached_property
    def remade(self) -> tuple[bool, ...]:
        """Whether each value can be made again: its producer may rerun, and then makes it."""
        remade = [False] * len(self.values)
        for op, again in zip(self.ops, self.reruns, strict=True):
            for value in again.outputs if op.reruns else ():
                remade[value] = True
        return tuple(remade)

    @cached_property
    def baseline_cost(self) -> float:
        """Cost of running every op once."""
        return math.fsum(op.cost for op in self.ops)

    @cached_property
    def cost_scale(self) -> float:
        """What differences of cost are measured by: the baseline's cost.

        Ops that must run once don't drown the others in it: at most ten times what those cost.
        """
        again = math.fsum(cost for op in self.ops for cost in _costs_again(op))
        return min(self.baseline_cost, 10 * again)

    @cached_property
    def cost_unit(self) -> float:
        """What any cost paid again is a multiple of; 0 where not all those costs are whole."""
        costs = [float(cost) for op in self.ops for cost in _costs_again(op)]
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
        """What each op's first run takes itself, at least: its workspace and its own values."""
        counted = self.counted_bytes
        return tuple(
            op.workspace_bytes + sum(counted[v] for v in self.own_values(k))
            for k, op in enumerate(self.ops)
        )

    def own_values(self, k: int) -> set[int]:
        """What is live while op k runs first: what it reads and makes, but for lazy values.

        Those that it makes may take nothing.
        """
        op = self.ops[k]
        return {*op.inputs, *(v for v in op.outputs if not self.values[v].lazy)}

    def to_json(self) -> str:
        """This problem as a ``fxremat-problem/2`` document."""
        return problem_document(self)

    @staticmethod
    def from_json(text: str) -> RematProblem:
        """Parse a ``fxremat-problem/2`` document, or one of version 1, whose reruns equal the
        first runs. `ProblemFormatError` names the bad field."""
        document = parse_problem(text)
        return RematProblem(
            records(document.ops, Op),
            records(document.values, Value),
            document.inputs,
            document.outputs,
            document.first_backward_op,
        )


def _readers(n_values: int, reads: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    readers: list[list[int]] = [[] for _ in range(n_values)]
    for index, values in enumerate(reads):
        for value in dict.fromkeys(values):
            readers[value].append(index)
    return tuple(map(tuple, readers))


def _costs_again(op: Op) -> tuple[float, ...]:
    return (op.reruns[0].cost,) if op.reruns else ()


def _validate(problem: RematProblem) -> None:
    n_values, n_ops = len(problem.values), len(problem.ops)
    for i, value in enumerate(problem.values):
        if value.nbytes < 0:
            raise ProblemFormatError(f"$.values[{i}].nbytes is {value.nbytes}: must be 0 or more")
    defined = bytearray(n_values)
    for field, indices in (("inputs", problem.inputs), ("outputs", problem.outputs)):
        _check_indices(f"$.{field}", indices, n_values)
        if len(set(indices)) != len(indices):
            raise ProblemFormatError(f"$.{field} names a value twice")
    for value in problem.inputs:
        defined[value] = 1
    for i, op in enumerate(problem.ops):
        at = f"$.ops[{i}]"
        _check_run(problem, op, at)
        _check_defined(problem, op.inputs, defined, at)
        for k, value in enumerate(op.outputs):
            if defined[value]:
                raise ProblemFormatError(
                    f"{at}.outputs[{k}]: value {value} ({problem.values[value].name!r}) "
                    "already exists; a value is a problem input or the output of exactly one op"
                )
            defined[value] = 1
        for j, again in enumerate(op.reruns):
            if again != op.first_run:
                _check_rerun(problem, op, again, defined, f"{at}.reruns[{j}]")
    for k, value in enumerate(problem.outputs):
        if not defined[value]:
            raise ProblemFormatError(f"$.outputs[{k}]: value {value} is made by no op")
    boundary = problem.first_backward_op
    if boundary is not None and not 0 <= boundary <= n_ops:
        raise ProblemFormatError(f"$.first_backward_op is {boundary}: expected null or 0..{n_ops}")
    _check_totals(problem)


def _check_run(problem: RematProblem, run: Op | Rerun, at: str) -> None:
    _check_indices(f"{at}.inputs", run.inputs, len(problem.values))
    _check_indices(f"{at}.outputs", run.outputs, len(problem.values))
    if not (math.isfinite(run.cost) and run.cost >= 0):
        raise ProblemFormatError(f"{at}.cost is {run.cost}: must be a finite number, 0 or more")
    if run.workspace_bytes < 0:
        raise ProblemFormatError(
            f"{at}.workspace_bytes is {run.workspace_bytes}: must be 0 or more"
        )


def _check_defined(
    problem: RematProblem, inputs: Sequence[int], defined: bytearray, at: str
) -> None:
    for k, value in enumerate(inputs):
        if not defined[value]:
            raise ProblemFormatError(
                f"{at}.inputs[{k}]: value {value} ({problem.values[value].name!r}) is read "
                "before any op makes it; ops must be in an executable order"
            )


def _check_rerun(problem: RematProblem, op: Op, again: Rerun, defined: bytearray, at: str) -> None:
    """`defined`: what exists after the op's first run."""
    _check_run(problem, again, at)
    _check_defined(problem, again.inputs, defined, at)
    if len(set(again.outputs)) != len(again.outputs):
        raise ProblemFormatError(f"{at}.outputs names a value twice")
    for k, value in enumerate(again.outputs):
        if value not in op.outputs:
            raise ProblemFormatError(
                f"{at}.outputs[{k}]: value {value} ({problem.values[value].name!r}) is not made by "
                "the op's first run; a rerun makes some of what that makes"
            )
        if value in again.inputs:
            raise ProblemFormatError(
                f"{at}.inputs: value {value} ({problem.values[value].name!r}) is what this rerun "
                "makes; it may read what only the first run makes"
            )


def _check_totals(problem: RematProblem) -> None:
    total = sum(value.nbytes for value in problem.values)
    reruns = [again for op in problem.ops for again in op.reruns]
    total += max((run.workspace_bytes for run in (*problem.ops, *reruns)), default=0)
    if total >= _BYTES_BELOW:
        raise ProblemFormatError(
            "$.values[...].nbytes and the largest $.ops[...].workspace_bytes add up to 2**53 or "
            "more: use a larger unit than bytes, for them and for the budget"
        )
    least, most = _COSTS
    for name, costs in (
        ("$.ops[...].cost", [op.cost for op in problem.ops]),
        ("$.ops[...].reruns[...].cost", [again.cost for again in reruns]),
    ):
        cost = sum(costs)
        if cost and not least <= cost <= most:
            raise ProblemFormatError(
                f"{name} add up to {cost}: it must be 0 or between {least} and {most}; "
                "use another unit"
            )


def _check_indices(field: str, indices: Sequence[int], count: int) -> None:
    for k, index in enumerate(indices):
        if not 0 <= index < count:
            raise ProblemFormatError(f"{field}[{k}] is {index}: expected 0..{count - 1}")
