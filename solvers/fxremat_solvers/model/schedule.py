"""What a solver returns: a schedule of ops, and how good it is known to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fxremat_solvers.model.documents import parse_schedule, schedule_document


@dataclass(frozen=True)
class Schedule:
    """Op indices in execution order; an op that is recomputed appears again.

    An op's first occurrence is its first run, each later one its rerun.

    Frees are not spelled out: a value is freed after its last use before its next computation.
    """

    ops: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ops)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ops)

    def to_json(self) -> str:
        """This schedule as a ``fxremat-schedule/1`` document."""
        return schedule_document(self.ops)

    @staticmethod
    def from_json(text: str) -> Schedule:
        """Parse a ``fxremat-schedule/1`` document; `ProblemFormatError` names the bad field."""
        return Schedule(parse_schedule(text))


class Status(StrEnum):
    """What is known of a solution."""

    OPTIMAL = "optimal"
    """No schedule under the budget costs less: where costs are whole numbers, exactly; else to
    2e-6 of the baseline's cost (`RematProblem.cost_scale`), the tolerance behind the bounds."""
    FEASIBLE = "feasible"
    """Within the budget; a cheaper schedule may exist, none below `lower_bound`."""
    TIME_LIMIT = "time_limit"
    """Within the budget; the search was cut off by its time limit."""
    INFEASIBLE = "infeasible"
    """No schedule within the budget was found; the schedule is the lowest-peak one found."""


@dataclass(frozen=True)
class Solution:
    """A schedule with its cost, its peak and a bound.

    `cost` is the schedule's total cost, `lower_bound` a number that no schedule under the budget
    can cost less than (same unit), `solver` the name of the method that found the schedule.
    Where `status` is INFEASIBLE, `schedule` is the one with the smallest peak found, so
    `peak_bytes` is the floor reached.
    """

    schedule: Schedule
    cost: float
    peak_bytes: int
    lower_bound: float
    status: Status
    solver: str
