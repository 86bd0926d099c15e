"""A small tape: each forward op states what its gradient reads, the backward part is derived.

Gradients of shared values are summed one by one. Sizes and costs come from shapes (bytes moved and
multiply-adds), not from a clock: they are reproducible.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from fxremat_solvers.model.problem import RematProblem, Value, plain_op

# The cost model of the training graphs, in seconds: a mid-range accelerator.
FLOPS_PER_S = 1e13
BYTES_PER_S = 1e12
LAUNCH_S = 2e-6


@dataclass(frozen=True)
class Node:
    """A forward op on the tape: what it reads and makes, and what its gradient reads."""

    name: str
    inputs: tuple[int, ...]
    output: int
    cost: float
    saved: tuple[int, ...]
    parameter_bytes: int
    extra: int | None

    @property
    def outputs(self) -> tuple[int, ...]:
        """All that it makes."""
        return (self.output,) if self.extra is None else (self.output, self.extra)


@dataclass
class Tape:
    """Builds the forward part; `finish` derives the backward part."""

    values: list[Value] = field(default_factory=list[Value])
    nodes: list[Node] = field(default_factory=list[Node])

    def value(self, name: str, nbytes: int) -> int:
        self.values.append(Value(name, nbytes))
        return len(self.values) - 1

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        nbytes: int,
        *,
        flops: float = 0.0,
        save_inputs: bool = False,
        save_output: bool = False,
        saves: Sequence[int] = (),
        parameter_bytes: int = 0,
        extra_bytes: int = 0,
    ) -> int:
        """One forward op; `extra_bytes` is a second output that its gradient reads."""
        output = self.value(name, nbytes)
        extra = self.value(f"{name}.extra", extra_bytes) if extra_bytes else None
        moved = nbytes + sum(self.values[v].nbytes for v in inputs) + extra_bytes
        cost = LAUNCH_S + max(flops / FLOPS_PER_S, moved / BYTES_PER_S)
        saved = (*saves, *(inputs if save_inputs else ()), *((output,) if save_output else ()))
        if extra is not None:
            saved = (*saved, extra)
        self.nodes.append(Node(name, tuple(inputs), output, cost, saved, parameter_bytes, extra))
        return output

    def finish(
        self,
        loss: int,
        given: Sequence[int],
        constants: Collection[int] = (),
        weights: Sequence[int] = (),
    ) -> RematProblem:
        """The joint graph: forward, then gradients in reverse; parameter gradients are outputs.

        So are those of `weights`, inputs that several ops may share.
        """
        ops = [plain_op(node.name, node.inputs, node.outputs, node.cost) for node in self.nodes]
        first_backward = len(ops)
        outputs = [loss]
        gradient: dict[int, int] = {loss: self.value("grad.loss", self.values[loss].nbytes)}
        ops.append(plain_op("grad.loss", (loss,), (gradient[loss],), LAUNCH_S))
        for node in reversed(self.nodes):
            if node.output not in gradient:
                continue
            fixed = {*given, *constants}
            targets = [source for source in dict.fromkeys(node.inputs) if source not in fixed]
            made = [
                self.value(f"grad.{node.name}.{source}", self.values[source].nbytes)
                for source in targets
            ]
            parameter: list[int] = []
            if node.parameter_bytes:
                parameter.append(self.value(f"grad.{node.name}.w", node.parameter_bytes))
                outputs.extend(parameter)
            reads = tuple(dict.fromkeys((gradient[node.output], *node.saved)))
            share = 2.0 if node.parameter_bytes else 1.0
            cost = LAUNCH_S + share * (node.cost - LAUNCH_S)
            ops.append(plain_op(f"grad.{node.name}", reads, (*made, *parameter), cost))
            for source, part in zip(targets, made, strict=True):
                if source in gradient:
                    total = self.value(f"grad.{source}", self.values[source].nbytes)
                    nbytes = self.values[source].nbytes
                    cost = LAUNCH_S + 3 * nbytes / BYTES_PER_S
                    ops.append(plain_op(f"add.{source}", (gradient[source], part), (total,), cost))
                    gradient[source] = total
                else:
                    gradient[source] = part
        outputs.extend(gradient[weight] for weight in weights)
        inputs = (*given, *weights)
        return RematProblem(tuple(ops), tuple(self.values), inputs, tuple(outputs), first_backward)
