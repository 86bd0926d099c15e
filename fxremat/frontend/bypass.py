"""Hear it when a module is trained without its plan.

A wrapper may run the parts of a module instead of calling it, as Lightning calls `training_step`,
and Dynamo leaves alone what it was told to. Nothing fails then, no budget holds, and only the
gradients that arrive show that a step ran.
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
    """How many planned steps began, and whether it was said that one ran without its plan."""

    count: int = 0
    warned: bool = False

    def warn(self, message: str) -> None:
        """Say once that a step ran without its plan."""
        if not self.warned:
            self.warned = True
            warnings.warn(message, UnplannedStepWarning, stacklevel=3)


@dataclass
class _Watch:
    """Hooks on a module's parameters, and the steps of all that `optimize` made of it."""

    planned: list[PlannedSteps] = field(default_factory=list[PlannedSteps])
    hooks: list[torch_hooks.Removable] = field(default_factory=list[torch_hooks.Removable])


# The parameters that some planned graph was given, whatever it was compiled from.
_planned_parameters = torch_hooks.WeakIdKeyDictionary()

# One watch a module, however often it is optimized: training any of its plans is right.
_watches: weakref.WeakKeyDictionary[nn.Module, _Watch] = weakref.WeakKeyDictionary()


def note_planned(arguments: tuple[object, ...]) -> None:
    """Remember which parameters a planned graph runs with."""
    for argument in arguments:
        if isinstance(argument, nn.Parameter):
            _planned_parameters[argument] = True


def watch_parameters(module: nn.Module, planned: PlannedSteps) -> None:
    """Warn once if a gradient reaches a parameter of `module` before any planned step ran.

    The first gradient that arrives ends the watch. Parameters that take another's place later
    (as under `fully_shard`) are not watched.
    """
    watch = _watches.setdefault(module, _Watch())
    if watch.hooks:
        watch.planned.append(planned)
        return
    watch.planned[:] = [planned]
    name = type(module).__name__

    def gradient_arrived(parameter: torch.Tensor) -> None:
        if not watch.hooks:
            return
        for hook in watch.hooks:
            hook.remove()
        watch.hooks.clear()
        heard = any(steps.count or steps.warned for steps in watch.planned)
        if not heard and parameter not in _planned_parameters:
            planned.warn(
                f"a backward reached the parameters of {name} without a planned step: that step "
                "had no plan, and its memory no budget. Something runs the parts of the module "
                "instead of calling what fxremat.optimize returned. Optimize the part that is "
                "called: with Lightning, give the LightningModule as it was to the Trainer with "
                "callbacks=[fxremat.integrations.lightning.MemoryBudget(...)], or optimize "
                "self.model = fxremat.optimize(self.model, ...) in its place"
            )

    for parameter in module.parameters():
        if parameter.requires_grad:
            watch.hooks.append(torch_hooks.call_when_accumulated(parameter, gradient_arrived))
