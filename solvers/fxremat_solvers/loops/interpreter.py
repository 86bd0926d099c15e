"""What a stream of actions does, and whether it may.

Every schedule runs through an `Interpreter`, in a loop as in a test: a wrong action is an error
where it comes, before anything is lost by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

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
        handler = self._handlers.get(type(action))
        if handler is None:
            kinds = ", ".join(kind.__name__ for kind in get_args(Action))
            raise ScheduleError(f"{action!r} is no action of a loop: those are {kinds}")
        handler(self, action)

    def finish(self) -> None:
        """The stream is over; `ScheduleError` where something is not reversed."""
        if self.left != 0:
            missing = "its turn" if self.left is None else f"the reversal of step {self.left - 1}"
            raise ScheduleError(f"the schedule ends before {missing}")

    def _store(self, action: Store) -> None:
        self._at(action, action.state)
        key = (action.state, action.level)
        if key in self.states:
            raise ScheduleError(f"{action}: this state is kept there already")
        self.states.add(key)
        self.stores[action.level] += 1
        if len(self.states) > self.most_states:
            self.most_states = len(self.states)

    def _load(self, action: Load) -> None:
        self._kept(action)
        if self.left is None:
            raise ScheduleError(f"{action} before the turn: the first run never goes back")
        self.loads[action.level] += 1
        self.current = action.state

    def _drop(self, action: Drop) -> None:
        self._kept(action)
        self.states.remove((action.state, action.level))

    def _advance(self, action: Advance) -> None:
        self._at(action, action.begin)
        if action.end <= action.begin:
            raise ScheduleError(f"{action} runs no step")
        self._may_run(action, action.end)
        self.evaluations += action.end - action.begin
        self.current = action.end

    def _tape(self, action: Tape) -> None:
        self._at(action, action.step)
        if action.step in self.tapes:
            raise ScheduleError(f"{action}: this tape is kept already")
        self._may_run(action, action.step + 1)
        self.tapes.add(action.step)
        self.evaluations += 1
        self.tapes_made += 1
        if len(self.tapes) > self.most_tapes:
            self.most_tapes = len(self.tapes)
        self.current = action.step + 1

    def _turn(self, action: Turn) -> None:
        if self.left is not None:
            raise ScheduleError(f"{action}: a second turn")
        if self.steps is None:
            self.steps = action.steps
        if action.steps != self.steps:
            raise ScheduleError(f"{action}, but the loop has {self.steps} steps")
        self._at(action, action.steps)
        self.left = action.steps

    def _pull(self, action: Pull) -> None:
        if self.left is None:
            raise ScheduleError(f"{action} before the turn")
        if action.step != self.left - 1:
            raise ScheduleError(f"{action}: the next step to reverse is {self.left - 1}")
        if action.step not in self.tapes:
            raise ScheduleError(f"{action}: the step has no tape")
        self.tapes.remove(action.step)
        self.left = action.step
        self.current = None

    def _at(self, action: Action, state: int) -> None:
        if self.current != state:
            now = "no state is current" if self.current is None else f"x_{self.current} is current"
            raise ScheduleError(f"{action}, but {now}")

    def _kept(self, action: Load | Drop) -> None:
        if (action.state, action.level) not in self.states:
            raise ScheduleError(f"{action}: this state is not kept there")

    def _may_run(self, action: Action, end: int) -> None:
        most = self.steps if self.left is None else self.left
        if most is not None and end > most:
            of = "the loop's end" if self.left is None else "what is reversed already"
            raise ScheduleError(f"{action} runs into {of}: steps end at {most}")

    # Looked up, as every action of a loop comes by here.
    _handlers: ClassVar[dict[type, Callable[[Interpreter, Any], None]]] = {
        Advance: _advance,
        Tape: _tape,
        Pull: _pull,
        Load: _load,
        Store: _store,
        Drop: _drop,
        Turn: _turn,
    }


def interpret(actions: Iterable[Action], steps: int | None = None) -> Interpreter:
    """All of a schedule, followed to its end."""
    interpreter = Interpreter(steps)
    for action in actions:
        interpreter.take(action)
    interpreter.finish()
    return interpreter
