"""What a plan of one graph takes of a step that has others: while it runs, and in between.

A part is a graph among several of a step. What its forward returns is held by who called it, for
as long as that is; what is counted here is the part's own: residuals, and outputs among them where
nothing else holds them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from fxremat.lower.lowering import Lowering
from fxremat_solvers import Schedule, live_after, simulate

Outputs = frozenset[int]
"""Outputs of a part's forward, as values of its problem."""


@dataclass(frozen=True)
class PartPlan:
    """A schedule of one part, in seconds and bytes.

    `forward_bytes` is the most that forward takes. `residual_bytes` are held from forward to
    backward, beside `kept_outputs`, outputs of forward (and their bytes) that are residuals too.
    `backward_bytes` is what is taken while each step of backward runs, all residuals, tangents and
    gradients included, and `held_until` says up to which of these steps a kept output is one.
    `freed_bytes` are those of residuals freed before each step, unless backward keeps them.
    """

    schedule: Schedule
    cost: float
    forward_bytes: int
    residual_bytes: int
    kept_outputs: Mapping[int, int]
    backward_bytes: tuple[int, ...]
    held_until: Mapping[int, int]
    freed_bytes: tuple[int, ...]

    def saved_bytes(self, alive: Outputs) -> int:
        """What is held between forward and backward, given the outputs that others hold then."""
        return self.residual_bytes + sum(
            nbytes for output, nbytes in self.kept_outputs.items() if output not in alive
        )

    def backward_peak(self, alive: Outputs, handed_over: int, *, keeps: bool = False) -> int:
        """The most that backward takes, with the saved bytes; whether it `keeps` them to its end.

        `alive` outputs are others' when it begins, and so are `handed_over` bytes of tangents,
        which it frees.
        """
        peak = 0
        for step, nbytes in enumerate(self.backward_bytes):
            if keeps:
                nbytes += self.freed_bytes[step]
            for output, held in self.kept_outputs.items():
                if step <= self.held_until[output]:
                    nbytes -= held if output in alive else 0
                elif keeps and output not in alive:
                    nbytes += held
            peak = max(peak, nbytes)
        return peak - handed_over


def part_plan(lowering: Lowering, schedule: Schedule) -> PartPlan:
    """What a schedule of a part takes. Raises `ScheduleError` where it can't be executed."""
    problem = lowering.problem
    simulation = simulate(problem, schedule)
    boundary = schedule.ops.index(lowering.tangents_op)
    tangents = {v for v in problem.ops[lowering.tangents_op].outputs if problem.values[v].nbytes}
    live = live_after(problem, simulation, boundary) - tangents
    outputs = forward_outputs(lowering)
    kept = {v: problem.values[v].nbytes for v in sorted(live & outputs)}
    made = sum(problem.values[v].nbytes for v in tangents)
    at_boundary = simulation.running_bytes[boundary] - made
    until = dict.fromkeys(live, len(schedule))
    for step in range(len(schedule) - 1, boundary, -1):
        # The first death after the boundary ends what was kept over it.
        until.update((v, step - boundary - 1) for v in simulation.dies[step] if v in until)
    residuals = {v: problem.values[v].nbytes for v in live - outputs}
    freed = [0] * (len(schedule) - boundary - 1)
    for value, nbytes in residuals.items():
        if until[value] + 1 < len(freed):
            freed[until[value] + 1] += nbytes
    return PartPlan(
        schedule=schedule,
        cost=simulation.cost,
        forward_bytes=max((at_boundary, *simulation.running_bytes[:boundary])),
        residual_bytes=sum(residuals.values()),
        kept_outputs=kept,
        backward_bytes=simulation.running_bytes[boundary + 1 :],
        held_until={value: until[value] for value in kept},
        freed_bytes=tuple(itertools.accumulate(freed)),
    )


def forward_outputs(lowering: Lowering) -> set[int]:
    """The values that forward returns and that take memory of their own."""
    resident = set(lowering.problem.inputs)
    return {value for value in lowering.outputs if value not in resident}
