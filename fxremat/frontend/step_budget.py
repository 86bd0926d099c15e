"""`StepBudget`: one budget that several compiled functions share, as their graphs are one step.

Blocks that are compiled one by one, an encoder and a decoder, a model and its loss: what each may
hold depends on what the others hold. They share one backend, and with it one tracker of steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fxremat.errors import OptionError
from fxremat.frontend.backend import Backend
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.plan.budget import Budget
from fxremat.plan.options import Options
from fxremat.step.tracker import StepTracker

Key = tuple[Callable[..., Any], bool]
"""A forward of a class, and whether it must be one graph."""


@dataclass(eq=False)
class _Shared:
    """What all functions under one budget have in common, from the first of them on."""

    backend: Backend
    calls: dict[Key, Callable[..., Any]] = field(default_factory=dict[Key, Callable[..., Any]])


class StepBudget:
    """A budget for one training step, given to everything that is compiled of it.

        budget = fxremat.StepBudget("6GiB")
        for i, block in enumerate(model.blocks):
            model.blocks[i] = fxremat.optimize(block, budget=budget)
        loss_function = fxremat.optimize(loss_function, budget=budget)

    or ``block.compile(backend="fxremat", options={"budget": budget})``. `budget` is what `optimize`
    takes: bytes, a size or a fraction of the step memory with nothing recomputed. The first step
    runs by the plans that save the least and is recorded; from the second on there is a plan for
    every call, made for all of them together. Modules of the same class and sizes are traced once.
    `explain_step` reports on it.

    A copy of a module that was optimized under it shares it; unpickled ones have one of their own.
    Raises `BudgetError` for what is no budget.
    """

    def __init__(self, budget: object) -> None:
        self.budget = Budget.of(budget)
        self._shared: _Shared | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"StepBudget({self.budget.plain!r})"

    def __reduce__(self) -> tuple[type[StepBudget], tuple[object, ...]]:
        return StepBudget, (self.budget.plain,)

    def __copy__(self) -> StepBudget:
        return self

    def __deepcopy__(self, _memo: object) -> StepBudget:
        # A copy of a model may train in the same step as the model, as a teacher or an average.
        return self

    @property
    def known(self) -> Backend | None:
        """The backend of all that share the budget; None as long as nothing does."""
        return self._shared and self._shared.backend

    def backend(self, options: Options) -> Backend:
        """The backend of all that share the budget. Raises `OptionError` for other options."""
        with self._lock:
            if self._shared is None:
                backend = Backend.of(options, WholeStep(fullgraph=False), StepTracker(options))
                self._shared = _Shared(backend)
        known = self._shared.backend.options
        differ = [
            f"{name}={mine!r} and {getattr(options, name)!r}"
            for name, mine in vars(known).items()
            if mine != getattr(options, name)
        ]
        if differ:
            raise OptionError(
                f"what shares a StepBudget is planned together, with the same options, but has "
                f"{', '.join(differ)}: give the same ones"
            )
        return self._shared.backend

    def call_of(self, key: Key, compile_forward: Callable[[], Callable[..., Any]]) -> Any:
        """What runs a forward of a class for every module that has it; compiled if it wasn't."""
        shared = self._shared
        assert shared is not None, "the backend comes first"
        if key not in shared.calls:
            shared.calls[key] = compile_forward()
        return shared.calls[key]
