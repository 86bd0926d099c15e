"""A pipeline: passes that take a state and return the next one, and the one seam between them.

A pass is a small frozen dataclass whose fields are its options. A state is frozen too, and has a
`check` that says whether it is sound. What stands between the passes (`Between`) sees every state
before the next pass does: it logs, dumps and checks, and a test can put another state in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class State(Protocol):
    """What a pass takes or returns."""

    def check(self) -> None:
        """Raise `VerificationError` where the state contradicts itself."""
        ...

    def summary(self) -> str:
        """One line of figures for the log."""
        ...

    def files(self) -> dict[str, str]:
        """What this state adds, as text files by name, for who looks into a compilation."""
        ...


class Pass(Protocol):
    """One step of a pipeline."""

    @property
    def name(self) -> str: ...

    def run(self, state: Any) -> Any: ...


Between = Callable[[str, State, float], State]
"""Called after each pass with its name, the state and its seconds; returns the state to go on."""


def run_passes(passes: Sequence[Pass], state: Any, between: Sequence[Between]) -> Any:
    """The state after all passes."""
    for each in passes:
        started = time.perf_counter()
        state = each.run(state)
        seconds = time.perf_counter() - started
        for look in between:
            state = look(each.name, state, seconds)
    return state
