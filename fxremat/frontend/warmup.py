"""`warmup`: plan and compile a training step before training, and leave no trace of it."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import NoReturn

import numpy as np
import torch
from torch import nn

from fxremat import torch_hooks
from fxremat.errors import OptionError
from fxremat.frontend.backend import Backend
from fxremat.frontend.compiled import Compiled
from fxremat.frontend.step_budget import StepBudget

# Two are enough but where the first record was of no use.
_RUNS = 4


def warmup(step: Callable[[], object], *trained: object) -> None:
    """Run a training step until it runs by its plan, and undo what that has changed.

    `step` takes no arguments and runs forward and backward on a batch of the sizes to train with,
    without an optimizer's step. `trained` are the modules that it trains: what `optimize` returned,
    a module with such parts, and a `StepBudget` where functions share one. Their gradients and
    buffers, and the random state of torch, Python and NumPy, are as before when this returns. What
    else `step` changes, such as an iterator that it takes a batch from, stays changed.

        fxremat.warmup(lambda: loss_of(model(x), y).backward(), model)

    A step of one graph runs once, one of several graphs twice: recorded, then by its plans.

    Raises `OptionError` where nothing optimized is given, where `step` calls an optimizer (before
    that changes anything), and what the step raises (`BudgetInfeasible`).
    """
    modules = [each for each in trained if isinstance(each, nn.Module)]
    backends = list({id(backend): backend for backend in _backends_of(trained)}.values())
    if not backends:
        raise OptionError(
            "warmup was given nothing that fxremat.optimize returned, nor a StepBudget: give the "
            "modules that the step trains, warmup(step, model)"
        )
    with _undone(modules), _without_optimizers():
        for _ in range(_RUNS):
            for parameter in _parameters(modules):
                parameter.grad = None
            step()
            if all(_is_planned(backend) for backend in backends):
                return
    warnings.warn(
        f"after {_RUNS} steps there is no plan for the step yet: it may not call what was "
        "optimized, record no gradients, or make other calls each time. It is planned when two "
        "steps in a row make the same calls",
        stacklevel=2,
    )


def _is_planned(backend: Backend) -> bool:
    if backend.tracker is None:
        return backend.steps.count > 0
    backend.tracker.settle()
    return backend.tracker.is_settled


def _backends_of(trained: tuple[object, ...]) -> Iterator[Backend]:
    for each in trained:
        if isinstance(each, StepBudget) and each.known is not None:
            yield each.known
        parts = each.modules() if isinstance(each, nn.Module) else [each]
        for part in parts:
            compiled = getattr(part, "__fxremat__", None)
            if isinstance(compiled, Compiled):
                yield compiled.backend


def _parameters(modules: list[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


@contextlib.contextmanager
def _undone(modules: list[nn.Module]) -> Generator[None, None, None]:
    """Gradients, buffers and random states are as before."""
    gradients = [(parameter, parameter.grad) for parameter in _parameters(modules)]
    holders = [part for module in modules for part in module.modules()]
    buffers = [
        (holder, name, buffer, buffer.clone())
        for holder in holders
        for name, buffer in holder.named_buffers(recurse=False)
    ]
    device = next((p.device for p in _parameters(modules)), torch.device("cpu"))
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch_hooks.forked_generators(device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for holder, name, buffer, values in buffers:
                setattr(holder, name, buffer.copy_(values))


@contextlib.contextmanager
def _without_optimizers() -> Generator[None, None, None]:
    """An optimizer's step is an error, before it changes a parameter."""

    def refuse(*_arguments: object) -> NoReturn:
        raise OptionError(
            "the step that warmup was given calls an optimizer, whose changes can't be undone: "
            "give one that ends with the backward"
        )

    hook = torch_hooks.call_before_optimizers(refuse)
    try:
        yield
    finally:
        hook.remove()
