"""What a loop's step takes, and the peak of a schedule by that.

What is kept is counted by the actions, each memory once: a state that is current, or stored, or
that a tape begins or ends with, and what else a tape holds. The first state is the user's own. What
an action takes beside that is measured on loops of four steps, for all kinds of *moments* that a
schedule has. So the peak is the measured one to the byte, as long as all steps are alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Pull, Store, Tape, Turn
from fxremat_solvers.loops.binomial import binomial
from fxremat_solvers.loops.interpreter import Interpreter

_SHORT = 4


class Moment(NamedTuple):
    """An action, as far as what it takes beside all that is kept depends on it.

    `stage` is the loop's first run, the reversal of its last step, or the rest. `alone` says that
    nothing else holds the state that a step begins with, which may be freed meanwhile.
    """

    action: Literal["tape", "turn", "pull"]
    stage: Literal["sweep", "last", "rest"]
    alone: bool


@dataclass(frozen=True)
class Figures:
    """Bytes and seconds of a step.

    A stored state takes `state` and `random`. A tape takes `tape`, with the larger of what it holds
    of the states that it begins and ends with, `begins` and `ends`. That of the first step, from
    the user's own state, takes `first_tape`. `beside` has what moments take
    beside what is kept. To that each step of the loop adds its `outputs` in the first run, and from
    the turn on `per_step`: outputs, their incoming gradients and the gradients of xs.
    """

    state: int
    random: int
    tape: int
    first_tape: int
    begins: int
    ends: int
    beside: Mapping[Moment, int]
    outputs: int
    per_step: int
    forward_seconds: float
    backward_seconds: float

    @staticmethod
    def at_most(nbytes: int, seconds: float) -> Figures:
        """Those of a loop that was measured as a whole."""
        whole = {Moment("pull", "rest", alone=True): nbytes}
        return Figures(0, 0, 0, 0, 0, 0, whole, 0, 0, 0.0, seconds)

    def seconds(self, evaluations: int, steps: int) -> float:
        """The time of a loop and its reversal."""
        return (evaluations - steps) * self.forward_seconds + steps * self.backward_seconds

    def peak(self, actions: Iterable[Action], steps: int) -> tuple[int, Interpreter]:
        """The most that a schedule takes at once, and what it does."""
        return self._peak(actions, steps, steps)

    def least(self, steps: int) -> int:
        """The peak of a loop that keeps one state, its first."""
        return self._peak(binomial(_SHORT, 1), _SHORT, steps)[0]

    def each(self, moment: Moment) -> int:
        """What a step of the loop adds to what a moment takes."""
        return self.outputs if moment.stage == "sweep" else self.per_step

    def _peak(self, actions: Iterable[Action], length: int, steps: int) -> tuple[int, Interpreter]:
        """That of a schedule of some `length`, as part of a loop of so many steps."""
        position = Position(self, length)
        peak = 0
        for action in actions:
            moment = position.moment(action)
            if moment is not None:
                beside = self._beside(moment) + steps * self.each(moment)
                peak = max(peak, position.kept_during(moment) + beside)
            position.take(action)
        position.schedule.finish()
        return peak, position.schedule

    def _beside(self, moment: Moment) -> int:
        found = self.beside.get(moment)
        if found is None:
            found = self.beside.get(moment._replace(alone=not moment.alone))
        return self._most if found is None else found

    @cached_property
    def _most(self) -> int:
        return max(self.beside.values())


class Position:
    """A position in a schedule; `kept` is what is held there, the current state included."""

    def __init__(self, figures: Figures, steps: int) -> None:
        self.schedule = Interpreter(steps)
        self.kept = 0
        self._figures = figures

    def moment(self, action: Action) -> Moment | None:
        """That of an action at this position; None for one that takes less than the next ones.

        Steps that run without a graph take less than the one that is taped after them.
        """
        left = self.schedule.left
        stage = "sweep" if left is None else "last" if left == self.schedule.steps else "rest"
        match action:
            case Tape(step):
                return Moment("tape", stage, self._is_alone(step))
            case Pull(step):
                return Moment("pull", stage, self._is_alone(step))
            case Turn():
                return Moment("turn", "last", alone=True)
            case _:
                return None

    def kept_during(self, moment: Moment) -> int:
        """What is held meanwhile: a reversal needs no current state."""
        schedule = self.schedule
        current = schedule.current
        if moment.action != "pull" or current is None:
            return self.kept
        held = self._of_state(current)
        schedule.current = None
        held -= self._of_state(current)
        schedule.current = current
        return self.kept - held

    def take(self, action: Action) -> None:
        """Go on by an action. Raises `ScheduleError` where it can't be done."""
        schedule, figures = self.schedule, self._figures
        touched = {schedule.current}
        match action:
            case Advance(_, end):
                touched.add(end)
            case Store(state, _) | Load(state, _) | Drop(state, _):
                touched.add(state)
            case Tape(step) | Pull(step):
                touched |= {step, step + 1}
            case Turn():
                pass
        states = len(schedule.states)
        before = sum(map(self._of_state, touched))
        schedule.take(action)
        self.kept += sum(map(self._of_state, touched)) - before
        self.kept += (len(schedule.states) - states) * figures.random
        if isinstance(action, (Tape, Pull)):
            own = figures.tape - max(figures.begins, figures.ends)
            if action.step == 0:
                own = figures.first_tape
            self.kept += own if isinstance(action, Tape) else -own

    def _of_state(self, number: int | None) -> int:
        """What is held of a state."""
        if number is None or number == 0:
            return 0
        schedule, figures = self.schedule, self._figures
        if number == schedule.current or (number, 0) in schedule.states:
            return figures.state
        begins = figures.begins if number in schedule.tapes else 0
        ends = figures.ends if number - 1 in schedule.tapes else 0
        return max(begins, ends)

    def _is_alone(self, number: int) -> bool:
        stored = (number, 0) in self.schedule.states
        held = self._figures.ends > 0 and number - 1 in self.schedule.tapes
        return not (number == 0 or stored or held)
