"""Whether a loop of unknown length goes on: asked once a step, and never again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fxremat.errors import LoopError
from fxremat.loops.randomness import Generators


class Condition:
    """The user's condition, which gets the state and the step's number, and a most of steps."""

    def __init__(
        self,
        condition: Callable[[Any, int], Any],
        most: int | None,
        generators: Generators | None,
        *,
        always: bool,
    ) -> None:
        self._condition = condition
        self.most = most
        self._generators = generators
        self._looks = always

    def holds(self, state: Any, number: int) -> bool:
        """Whether step `number` is to run."""
        if self.most is not None and number >= self.most:
            return False
        if self._generators is None or not (self._looks or number == 0):
            return bool(self._condition(state, number))
        before = self._generators.read()
        going = bool(self._condition(state, number))
        if not all(map(torch.equal, before, self._generators.read())):
            raise LoopError(
                "the condition of the loop draws random numbers, which steps that run again can't "
                "repeat, as it is asked only once: draw them in the step, as part of the state"
            )
        return going
