"""Hugging Face's Trainer within a memory budget, by one callback."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from fxremat.errors import MissingPackageError, OptionError
from fxremat.frontend.drop_in import original
from fxremat.frontend.optimize import optimize
from fxremat.frontend.step_budget import StepBudget
from fxremat.plan.budget import Budget
from fxremat.plan.options import make_options

try:
    from transformers import TrainerCallback  # pyright: ignore[reportMissingTypeStubs]
except ImportError as error:
    raise MissingPackageError(
        "fxremat.integrations.transformers needs Hugging Face's transformers, which can't be "
        f"imported here ({error}): pip install transformers accelerate"
    ) from error


class MemoryBudgetCallback(TrainerCallback):
    """Trains a Trainer's model within a budget.

    ``Trainer(model, arguments, callbacks=[MemoryBudgetCallback("6GiB")], ...)``. While it trains,
    the model's `forward` is the one that `fxremat.optimize` makes, given `budget` and the same
    `options`; afterwards it is as it was. `optimized` is what `fxremat.explain` takes. Gradient
    checkpointing is turned off, with a warning: the plan says what is recomputed.

    Raises `BudgetError` and `OptionError` at once, `OptionError` where training begins with a model
    that is optimized already, with ``torch_compile`` or with `nn.DataParallel`.
    """

    def __init__(self, budget: int | float | str | Budget | StepBudget, **options: Any) -> None:
        plain = budget.budget if isinstance(budget, StepBudget) else budget
        planning = {n: value for n, value in options.items() if n not in ("fullgraph", "regions")}
        make_options({"budget": plain, **planning})
        self._options: dict[str, Any] = {"budget": budget, **options}
        self.optimized: nn.Module | None = None
        self._before: dict[str, Any] = {}

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, **_given: Any
    ) -> None:
        """Have the model's forward run by a plan from now on."""
        del state, control
        _check(args, model)
        if self._runs(model):
            return  # Training ended early before, by an error.
        _stop_checkpointing(model)
        self.optimized = optimize(model, **self._options)
        # In place: the loop holds the model already, and a wrapper around it may.
        self._before = {name: f for name, f in vars(model).items() if name == "forward"}
        model.forward = self.optimized.forward

    def on_train_end(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, **_given: Any
    ) -> None:
        """Give the model its own forward back."""
        del args, state, control
        if self._runs(model):
            del model.forward
            vars(model).update(self._before)

    def _runs(self, model: nn.Module) -> bool:
        ours = self.optimized
        return ours is not None and vars(model).get("forward") == ours.forward


def _check(arguments: Any, model: nn.Module) -> None:
    if original(model) is not model:
        raise OptionError(
            "the Trainer's model is what fxremat.optimize returned, which has a budget already: "
            "leave out one of the two, optimize or MemoryBudgetCallback"
        )
    if arguments.torch_compile:
        raise OptionError(
            "torch_compile=True compiles the model around what MemoryBudgetCallback plans, so that "
            "no plan would run: leave it out"
        )
    if arguments.n_gpu > 1:
        raise OptionError(
            "the Trainer wraps the model in nn.DataParallel, whose copies would not run by the "
            "plan: start one process a GPU (torchrun, accelerate launch), or show it one GPU alone "
            "(CUDA_VISIBLE_DEVICES)"
        )


def _stop_checkpointing(model: Any) -> None:
    """Turn the model's gradient checkpointing off.

    It would change no plan, but what is switched off and on between steps (TRL's reference model
    is called so) is compiled anew each time.
    """
    # transformers called it `gradient_checkpointing` before.
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        disable = getattr(model, f"{name}_disable", None)
        if disable is None:
            continue
        if getattr(model, f"is_{name}", False):
            disable()
            warnings.warn(
                "gradient checkpointing is turned off: MemoryBudgetCallback plans what is "
                f"recomputed, whether layers are checkpointed or not. Leave {name}=True out",
                stacklevel=2,
            )
        return
