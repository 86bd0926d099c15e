"""Export a real model's rematerialization problem as JSON, for the solvers' own command.

python -m fxremat export module:factory --out problem.json
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

from torch import nn

from fxremat.errors import OptionError
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.optimize import optimize


def export_problem(model: Callable[..., Any], example_inputs: object, *, cost: str = "auto") -> str:
    """The problem of one training step as a ``fxremat-problem/2`` document.

    `model` must see the step as it is to be planned: with the loss inside, or not. Costs are in
    seconds by the given cost model.
    """
    optimized = optimize(model, budget=1.0, cost=cost, example_inputs=example_inputs)
    graphs = compiled_of(optimized).backend.history.graphs
    if not graphs:
        raise OptionError("the model has nothing to differentiate: it traces no training graph")
    return graphs[-1].plan.problem.to_json()


def export_from_factory(path: str, *, cost: str = "auto") -> str:
    """Export what ``module:factory`` makes: the factory returns a model and its inputs.

    Raises `OptionError` where there is no such factory or it returns something else.
    """
    module_name, _, attribute = path.partition(":")
    if not attribute:
        raise OptionError(f"{path!r} names no factory: write module:function")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"there is no factory {path!r}: {error}") from error
    made = factory()
    if not isinstance(made, tuple) or len(cast("tuple[Any, ...]", made)) != 2:
        raise OptionError(f"{path!r} must return a pair: a model and its inputs")
    model, inputs = cast("tuple[Any, Any]", made)
    if isinstance(model, nn.Module):
        model.train()
    return export_problem(model, inputs, cost=cost)
