"""What several commands have in common: budgets, models, and how an answer is printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

from rich.console import Console, RenderableType
from torch import nn

from fxremat.errors import OptionError
from fxremat.estimate.estimate import factory_at
from fxremat.plan.budget import Budget

WIDTH = 100


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option that all commands have."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def answer(args: argparse.Namespace, figures: Mapping[str, Any], shown: RenderableType) -> None:
    """Print an answer: its figures as JSON, or as one reads it."""
    if args.json:
        print(json.dumps(figures))
    else:
        Console(width=WIDTH, file=sys.stdout, highlight=False).print(shown)


def budget_of(text: str) -> Budget:
    """A budget from the command line: bytes, a size with a unit, or a fraction such as 0.5."""
    try:
        number = float(text)
    except ValueError:
        return Budget.of(text)
    return Budget.of(int(number) if number.is_integer() and number > 1 else number)


def model_of(path: str) -> tuple[Callable[..., Any], Any]:
    """What ``module:factory`` makes: the factory returns a model and its inputs.

    Raises `OptionError` where there is no such factory or it returns something else.
    """
    made: object = factory_at(path)()
    if not isinstance(made, tuple) or len(cast("tuple[Any, ...]", made)) != 2:
        raise OptionError(f"{path!r} must return a pair: a model and its inputs")
    model, inputs = cast("tuple[Any, Any]", made)
    if isinstance(model, nn.Module):
        model.train()
    return model, inputs
