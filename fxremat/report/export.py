"""A real model's rematerialization problem as JSON: `fxremat export` writes it to a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fxremat.errors import OptionError
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.optimize import optimize


def export_problem(
    model: Callable[..., Any],
    example_inputs: object,
    *,
    cost: str = "auto",
    executor: str = "eager",
) -> str:
    """The problem of one training step as a ``fxremat-problem/2`` document.

    `model` must see the step as it is to be planned: with the loss inside, or not. Costs are in
    seconds by the given cost model.
    """
    optimized = optimize(
        model, budget=1.0, cost=cost, executor=executor, example_inputs=example_inputs
    )
    graphs = compiled_of(optimized).backend.history.graphs
    if not graphs:
        raise OptionError("the model has nothing to differentiate: it traces no training graph")
    return graphs[-1].plan.problem.to_json()
