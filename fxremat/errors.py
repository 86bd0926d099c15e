"""Typed errors. Each message says what is wrong, why, and what to do instead.

They pass through `torch.compile` as they are, without being wrapped in torch's own exceptions.
"""

from __future__ import annotations

from fxremat.torch_hooks import PassesThroughDynamo


class FxrematError(PassesThroughDynamo):
    """Base class of every error raised by fxremat."""


class BudgetError(FxrematError, ValueError):
    """A budget is not a positive number of bytes, a size with units, or a fraction in (0, 1]."""


class BudgetInfeasible(FxrematError):
    """The budget can't be met.

    `budget_bytes` is what was asked for, `floor_bytes` the smallest budget that can be met, and
    `holders` the values that hold memory at that peak: (description, bytes), largest first.
    """

    def __init__(
        self,
        message: str,
        *,
        budget_bytes: int,
        floor_bytes: int,
        holders: tuple[tuple[str, int], ...],
    ) -> None:
        super().__init__(message)
        self.budget_bytes = budget_bytes
        self.floor_bytes = floor_bytes
        self.holders = holders


class LoopError(FxrematError):
    """A loop's step does what can't be reversed exactly, or its reversal was asked for wrongly."""


class StorageError(FxrematError, OSError):
    """A loop's states can't be kept where they were to go."""


class MissingPackageError(FxrematError, ImportError):
    """A library that an integration is for isn't installed."""


class OptionError(FxrematError, ValueError):
    """An option is unknown, missing, or has a value outside its range."""


class GraphBreakError(FxrematError):
    """The model does not trace into one graph, so one budget can't hold for its whole step."""


class DispatchModeError(FxrematError):
    """A mode that sees every op (a FLOP counter, a memory tracker) is active around the step."""


class DoubleBackwardError(FxrematError):
    """Gradients of gradients (`create_graph=True`) were asked of a rematerialized graph."""


class DeviceError(FxrematError):
    """The model's device is not available, or the model spans several devices."""


class UnsupportedGraphError(FxrematError):
    """The traced graph holds something fxremat can't plan exactly."""


class SymbolicSizeError(UnsupportedGraphError):
    """A size in the traced graph is no number: it depends on a Python number that changes, or on
    the data, and nothing says how large it can be."""


class VerificationError(FxrematError):
    """The rewritten graphs do not do what the plan says: a defect of fxremat, please report it."""


class UnplannedStepWarning(UserWarning):
    """A training step ran without any plan, so that no budget held for it."""
