"""How to solve: every option with its default, stated once."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any

from fxremat_solvers.errors import ArgumentError, UnknownSolverError


@dataclass(frozen=True)
class SolveOptions:
    """The solver by its name, the strategy of "auto" by its own, and when to stop.

    `time_limit_s` is a safety stop: the work is counted, and the same options give the same plan
    as long as it isn't reached. With `prove=False` "auto" looks for no bound.
    """

    solver: str = "auto"
    preset: str = "fast"
    time_limit_s: float = 30.0
    seed: int = 0
    prove: bool = True

    def given(self, **changes: Any) -> SolveOptions:
        """These options with changes. Raises `ArgumentError` for one that doesn't exist."""
        names = {field.name for field in dataclasses.fields(self)}
        unknown = sorted(set(changes) - names)
        if unknown:
            raise ArgumentError(
                f"no option {', '.join(unknown)}: the options are {', '.join(sorted(names))}"
            )
        return replace(self, **changes)

    def check(self, solvers: tuple[str, ...], presets: tuple[str, ...]) -> None:
        """Raise `UnknownSolverError` or `ArgumentError` for what no solver can be called with."""
        if self.solver not in solvers:
            names = ", ".join(solvers)
            raise UnknownSolverError(f"no solver {self.solver!r}: choose one of {names}")
        if self.preset not in presets:
            raise ArgumentError(
                f"preset is {self.preset!r}: choose one of {', '.join(map(repr, presets))}"
            )
        if math.isnan(self.time_limit_s) or self.time_limit_s < 0:
            raise ArgumentError(
                f"time_limit_s is {self.time_limit_s}: it must be 0 or more seconds"
            )
