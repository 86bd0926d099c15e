"""Hear it when a module is trained without its plan.

A wrapper may run the parts of a module instead of calling it: Lightning calls `training_step`, TRL
sets another `forward`, and Dynamo leaves alone what it was told to. Nothing fails then, no budget
holds, and only the gradients that arrive show that a step ran.
"""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass, field

import torch
from torch import nn

from fxremat import torch_hooks
from fxremat.errors import UnplannedStepWarning


@dataclass
class PlannedSteps:
    """How many planned steps ran."""

    count: int = 0


@dataclass
class _Watch:
    """Hooks on a module's parameters, and the steps of all that `optimize` made of it."""

    planned: list[PlannedSteps] = field(default_factory=list[PlannedSteps])
    hooks: list[torch_hooks.Removable] = field(default_factory=list[torch_hooks.Removable])


# One watch a module, however often it is optimized: training any of its plans is right.
_watches: weakref.WeakKeyDictionary[nn.Module, _Watch] = weakref.WeakKeyDictionary()


def watch_parameters(module: nn.Module, planned: PlannedSteps) -> None:
    """Warn once if a gradient reaches a parameter of `module` before any planned step ran.

    The first gradient that arrives ends the watch. Parameters that take another's place later
    (as under `fully_shard`) are not watched.
    """
    watch = _watches.setdefault(module, _Watch())
    watch.planned.append(planned)
    if watch.hooks:
        return
    name = type(module).__name__

    def gradient_arrived(_parameter: torch.Tensor) -> None:
        if not watch.hooks:
            return
        for hook in watch.hooks:
            hook.remove()
        watch.hooks.clear()
        if not any(steps.count for steps in watch.planned):
            warnings.warn(
                f"a backward reached the parameters of {name}, but its forward was not the one "
                "that fxremat.optimize returned: that step had no plan, and the budget does not "
                "hold. Something runs the module's parts instead of calling it. Lightning's "
                "training_step calls self.model: optimize that (self.model = "
                "fxremat.optimize(self.model, ...)). Where a library sets another forward "
                "(TRL), optimize the loss function or the part that it calls",
                UnplannedStepWarning,
                stacklevel=2,
            )

    for parameter in module.parameters():
        if parameter.requires_grad:
            watch.hooks.append(torch_hooks.call_when_accumulated(parameter, gradient_arrived))
