"""One compiled graph among several of a step, and what is needed to run it by any plan."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from fxremat.nodes import returned
from fxremat.step.compose import Front
from fxremat.step.parts import PartPlan
from fxremat_solvers import Schedule

_numbers = itertools.count()

Run = Callable[..., Any]


@dataclass
class Watch:
    """Told of what one compiled graph does: what its forward returned, and that backward ran.

    It sees AOTAutograd's own graphs: what is between them and the user, such as views of outputs
    and gradients that are added up, is outside.
    """

    outputs: Callable[[Sequence[Any]], None] | None = None
    backward_ran: Callable[[], None] | None = None
    _compiled: int = 0

    def on(self, run: Run, num_fwd_outputs: int) -> Run:
        """A compiled graph, watched: the first one is the forward, the second the backward."""
        self._compiled += 1

        def forward(arguments: list[Any]) -> Any:
            results = run(arguments)
            if self.outputs is not None:
                note, self.outputs = self.outputs, None
                note(results[:num_fwd_outputs])
            return results

        def backward(arguments: list[Any]) -> Any:
            results = run(arguments)
            if self.backward_ran is not None:
                note, self.backward_ran = self.backward_ran, None
                note()
            return results

        return forward if self._compiled == 1 else backward


@dataclass(eq=False)
class Part:
    """A compiled graph that may be called several times in a step, each time by another plan.

    `compile` makes what runs by another schedule; None where it can't be compiled again: it runs by
    its first plan, the least one. `runs` are those there are.
    `ends_with` says what ended the graph before its function did, `name` what it computes. Where
    its backward `comes_late`, it did so once after the step seemed to have ended.
    """

    front: Front
    runs: dict[tuple[int, ...], tuple[Run, Watch]]
    compile: Callable[[Schedule], tuple[Run, Watch]] | None
    name: str = ""
    ends_with: str = ""
    comes_late: bool = False
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def device(self) -> torch.device:
        return self.front.lowering.graph.device

    @cached_property
    def output_values(self) -> Mapping[int, int]:
        """By the position of what AOTAutograd's forward returns: the value of the problem."""
        graph = self.front.lowering.graph
        results = returned(graph.module.graph)[: graph.num_fwd_outputs]
        tensors = [k for k, node in enumerate(results) if node in graph.storage_of]
        resident = set(self.front.lowering.problem.inputs)
        values = zip(tensors, self.front.lowering.outputs, strict=True)
        return {position: value for position, value in values if value not in resident}

    def run_by(self, plan: PartPlan) -> tuple[Run, Watch]:
        """What runs by a plan; compiled where it wasn't yet."""
        key = plan.schedule.ops
        if key not in self.runs:
            assert self.compile is not None
            self.runs[key] = self.compile(plan.schedule)
        return self.runs[key]

    def has(self, plan: PartPlan) -> bool:
        """Whether a plan is compiled."""
        return plan.schedule.ops in self.runs


def is_first_accumulation(args: Sequence[Any]) -> bool:
    """Whether no parameter among the arguments of a call has a gradient yet."""
    return all(
        arg.grad is None
        for arg in args
        if isinstance(arg, torch.Tensor) and arg.is_leaf and arg.requires_grad
    )
