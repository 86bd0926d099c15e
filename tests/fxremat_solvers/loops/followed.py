"""A schedule of a loop, followed to its end."""

from __future__ import annotations

from collections.abc import Iterable

from fxremat_solvers.loops.actions import Action
from fxremat_solvers.loops.interpreter import Interpreter


def interpret(actions: Iterable[Action], steps: int | None = None) -> Interpreter:
    """All of a schedule: what it took; `ScheduleError` where it may not."""
    interpreter = Interpreter(steps)
    for action in actions:
        interpreter.take(action)
    interpreter.finish()
    return interpreter
