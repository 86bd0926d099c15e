"""Lightning: a callback that plans the training step of a LightningModule, its own loss included.

    trainer = Trainer(callbacks=[MemoryBudget("6GiB")])

Lightning never calls the module itself, but its `training_step`. While it fits, the callback puts
an optimized one in its place. What a step logs (`self.log`, `self.log_dict`) is noted while it
runs, as outputs of its graph, and logged when it has returned: logging would break the graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fxremat.errors import MissingPackageError, OptionError
from fxremat.frontend.compiled import Compiled, compiled_of
from fxremat.frontend.optimize import optimize
from fxremat.plan.budget import Budget

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise MissingPackageError(
        "fxremat.integrations.lightning needs lightning, which isn't installed: pip install "
        "lightning. Without it, fxremat.optimize is all there is to call"
    ) from error


class MemoryBudget(Callback):
    """Have the training steps of a LightningModule stay within `budget`, gradients bit for bit.

    `budget` and the further options are those of `fxremat.optimize`, which is given the module's
    `training_step`. Validation, testing and prediction run as they are. `training_step` is the
    optimized one, for `fxremat.explain` and `fxremat.explain_step`, once a fit has begun.

    With manual optimization a training step has backwards of its own: `fit` then raises
    `OptionError`, and the parts are optimized instead, in `configure_model`.
    """

    def __init__(self, budget: int | float | str | Budget, **options: Any) -> None:
        super().__init__()
        self.budget = budget
        self.options = options
        self.training_step: Callable[..., Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the optimized step in the place of the module's own."""
        del trainer
        if not pl_module.automatic_optimization:
            raise OptionError(
                "MemoryBudget plans a training_step that returns its loss, and this module's runs "
                "backward itself (automatic_optimization = False): leave the callback out, and "
                "optimize the parts in configure_model (self.model = fxremat.optimize(self.model, "
                "...)), or a function that returns the loss"
            )
        if isinstance(getattr(pl_module, "__fxremat__", None), Compiled):
            raise OptionError(
                "the LightningModule was given to fxremat.optimize, which plans its forward, and "
                "MemoryBudget plans its training_step: give the module to the Trainer as it was"
            )
        step = pl_module.training_step
        optimized = optimize(step, budget=self.budget, **self.options)
        # Lightning looks for the names of the arguments behind one `__wrapped__`.
        planned = functools.wraps(step)(_logging_afterwards(pl_module, optimized))
        planned.__fxremat__ = compiled_of(optimized)  # type: ignore[attr-defined]
        vars(pl_module)["training_step"] = self.training_step = planned

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module its own step back."""
        del trainer
        vars(pl_module).pop("training_step", None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the module its own step back, where a fit fails."""
        del exception
        self.on_fit_end(trainer, pl_module)


def _logging_afterwards(module: LightningModule, step: Callable[..., Any]) -> Callable[..., Any]:
    """A step in which the module's log calls are noted, and made when it has returned.

    What is noted are outputs of the graph. They are detached, as Lightning would have them, so that
    none has a gradient of its own.
    """
    noted: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def log(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        noted.append(("log", (name, _detached(value), *args), kwargs))

    def log_dict(dictionary: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        values = {name: _detached(value) for name, value in dictionary.items()}
        noted.append(("log_dict", (values, *args), kwargs))

    # The same functions at every step: for others Dynamo compiles again.
    notes = {"log": log, "log_dict": log_dict}

    def logging_step(*args: Any, **kwargs: Any) -> Any:
        vars(module).update(notes)
        try:
            result = step(*args, **kwargs)
            calls = tuple(noted)
        finally:
            noted.clear()
            for name in notes:
                del vars(module)[name]
        for name, its_args, its_kwargs in calls:
            getattr(module, name)(*its_args, **its_kwargs)
        return result

    return logging_step


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
