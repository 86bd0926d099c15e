"""What a stream of actions does, and whether it may.

Every schedule runs through an `Interpreter`, in a loop as in a test: a wrong action is an error
where it comes, before anything is lost by it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import get_args

from fxremat_solvers.errors import ScheduleError
from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Pull, Store, Tape, Turn


@dataclass
class Interpreter:
    """The position in a schedule and what it has taken so far.

    `current` is the number of the current state, None after a `Pull`. `steps` is None until it is
    known; `left` are the steps that are not reversed yet, from the turn on. `evaluations` are runs
    of a step, `tapes_made` those of them that made a tape. `most_states` and `most_tapes` were kept
    at once, `stores` and `loads` are counted by level.
    """

    steps: int | None = None
    current: int | None = 0
    left: int | None = None
    states: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    tapes: set[int] = field(default_factory=set[int])
    evaluations: int = 0
    tapes_made: int = 0
    stores: Counter[int] = field(default_factory=Counter[int])
    loads: Counter[int] = field(default_factory=Counter[int])
    most_states: int = 0
    most_tapes: int = 0

    def take(self, action: Action) -> None:
        """Follow one action; `ScheduleError` where it can't be done."""
        match action:
            case Store(state, level):
                self._at(action, state)
                if (state, level) in self.states:
                    raise ScheduleError(f"{action}: this state is kept there already")
                self.states.add((state, level))
                self.stores[level] += 1
                self.most_states = max(self.most_states, len(self.states))
            case Load(state, level):
                self._kept(action)
                if self.left is None:
                    raise ScheduleError(f"{action} before the turn: the first run never goes back")
                self.loads[level] += 1
                self.current = state
            case Drop(state, level):
                self._kept(action)
                self.states.remove((state, level))
            case Advance(begin, end):
                self._at(action, begin)
                if end <= begin:
                    raise ScheduleError(f"{action} runs no step")
                self._run(action, end, end - begin)
            case Tape(step):
                self._at(action, step)
                if step in self.tapes:
                    raise ScheduleError(f"{action}: this tape is kept already")
                self._run(action, step + 1, 1)
                self.tapes.add(step)
                self.tapes_made += 1
                self.most_tapes = max(self.most_tapes, len(self.tapes))
            case Turn(steps):
                if self.left is not None:
                    raise ScheduleError(f"{action}: a second turn")
                if self.steps not in (None, steps):
                    raise ScheduleError(f"{action}, but the loop has {self.steps} steps")
                self._at(action, steps)
                self.steps = self.left = steps
            case Pull(step):
                if self.left is None:
                    raise ScheduleError(f"{action} before the turn")
                if step != self.left - 1:
                    raise ScheduleError(f"{action}: the next step to reverse is {self.left - 1}")
                if step not in self.tapes:
                    raise ScheduleError(f"{action}: the step has no tape")
                self.tapes.remove(step)
                self.left, self.current = step, None
            case _:  # pyright: ignore[reportUnnecessaryComparison]
                kinds = ", ".join(kind.__name__ for kind in get_args(Action))
                raise ScheduleError(f"{action!r} is no action of a loop: those are {kinds}")

    def finish(self) -> None:
        """The stream is over; `ScheduleError` where something is not reversed."""
        if self.left != 0:
            missing = "its turn" if self.left is None else f"the reversal of step {self.left - 1}"
            raise ScheduleError(f"the schedule ends before {missing}")

    def _at(self, action: Action, state: int) -> None:
        if self.current != state:
            now = "no state is current" if self.current is None else f"x_{self.current} is current"
            raise ScheduleError(f"{action}, but {now}")

    def _kept(self, action: Load | Drop) -> None:
        if (action.state, action.level) not in self.states:
            raise ScheduleError(f"{action}: this state is not kept there")

    def _run(self, action: Action, end: int, evaluations: int) -> None:
        most = self.steps if self.left is None else self.left
        if most is not None and end > most:
            of = "the loop's end" if self.left is None else "what is reversed already"
            raise ScheduleError(f"{action} runs into {of}: steps end at {most}")
        self.evaluations += evaluations
        self.current = end
