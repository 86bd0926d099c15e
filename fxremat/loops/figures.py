"""What a loop's step takes, and the peak of a schedule by that.

Everything that is kept is counted by the actions: a state takes `state` and `random` bytes (the
first one is the user's own and takes only the latter), a kept tape `tape`. What is at work beside
that is measured on loops of four steps: the step that is reversed, its gradients, the totals, the
result and its incoming gradient. For schedules that keep states alone the peak is the measured one
to the byte, as it is where all steps are taped; with both it is up to some states above it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fxremat_solvers.loops.actions import Action, Pull, Tape, Turn
from fxremat_solvers.loops.interpreter import Interpreter


@dataclass(frozen=True)
class Figures:
    """Bytes and seconds of a step.

    `first` and `later` are at work while the last step, or another, is run with its graph and
    reversed, `pulled` where a kept tape is. `per_step` are outputs, their incoming gradients and
    the gradients of xs.
    """

    state: int
    random: int
    tape: int
    first: int
    later: int
    pulled: int
    per_step: int
    forward_seconds: float
    backward_seconds: float

    def seconds(self, evaluations: int, steps: int) -> float:
        """The time of a loop and its reversal."""
        return (evaluations - steps) * self.forward_seconds + steps * self.backward_seconds

    def peak(self, actions: Iterable[Action], steps: int) -> tuple[int, Interpreter]:
        """The most that a schedule takes at once, and what it does.

        Steps that run without a graph take less than the one that is taped after them.
        """
        interpreter = Interpreter(steps)
        peak = 0
        for action in actions:
            interpreter.take(action)
            if isinstance(action, (Tape, Turn)):
                first = interpreter.left is None or interpreter.left == steps
                peak = max(peak, self._held(interpreter) + (self.first if first else self.later))
            elif isinstance(action, Pull) and interpreter.tapes:
                # If no step runs before, the last of them is at work now.
                peak = max(peak, self._held(interpreter) + self.pulled)
        interpreter.finish()
        return peak + steps * self.per_step, interpreter

    def _held(self, interpreter: Interpreter) -> int:
        """What is kept; the tape that was made last is at work, or will be before another one."""
        states = interpreter.states
        own = sum(1 for state, _ in states if state != 0)
        tapes = max(0, len(interpreter.tapes) - 1)
        return own * self.state + len(states) * self.random + tapes * self.tape
