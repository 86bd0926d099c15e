"""fxremat: train a PyTorch model within a memory budget, gradients bit for bit.

    model = fxremat.optimize(model, budget="6GiB")

or ``torch.compile(model, backend="fxremat", options={"budget": "6GiB"})``.
"""

from fxremat.errors import (
    BudgetError,
    BudgetInfeasible,
    DeviceError,
    DispatchModeError,
    DoubleBackwardError,
    FxrematError,
    GraphBreakError,
    LoopError,
    MissingPackageError,
    OptionError,
    StorageError,
    SymbolicSizeError,
    UnplannedStepWarning,
    UnsupportedGraphError,
    VerificationError,
)
from fxremat.estimate.answer import Estimate
from fxremat.estimate.device import DeviceSpec
from fxremat.estimate.estimate import estimate
from fxremat.frontend.inductor_host import inductor_options, installed
from fxremat.frontend.optimize import optimize
from fxremat.frontend.padding import pad_to_multiple
from fxremat.frontend.step_budget import StepBudget
from fxremat.frontend.warmup import warmup
from fxremat.loops.loop import loop
from fxremat.loops.plan import LoopPlan
from fxremat.loops.storage import Storage
from fxremat.measure.peak import PeakMeasurement, measure_peak
from fxremat.plan.budget import Budget
from fxremat.policy import Policy, keep
from fxremat.report.explain import Report, explain, floor
from fxremat.report.process import CompiledSteps
from fxremat.report.steps import StepReport, explain_step
from fxremat_solvers.version import __version__

# Pickled models name it: by its public place, wherever its file lies.
optimize.__module__ = "fxremat"
Policy.__module__ = "fxremat"

__all__ = [
    "Budget",
    "BudgetError",
    "BudgetInfeasible",
    "CompiledSteps",
    "DeviceError",
    "DeviceSpec",
    "DispatchModeError",
    "DoubleBackwardError",
    "Estimate",
    "FxrematError",
    "GraphBreakError",
    "LoopError",
    "LoopPlan",
    "MissingPackageError",
    "OptionError",
    "PeakMeasurement",
    "Policy",
    "Report",
    "StepBudget",
    "StepReport",
    "Storage",
    "StorageError",
    "SymbolicSizeError",
    "UnplannedStepWarning",
    "UnsupportedGraphError",
    "VerificationError",
    "__version__",
    "estimate",
    "explain",
    "explain_step",
    "floor",
    "inductor_options",
    "installed",
    "keep",
    "loop",
    "measure_peak",
    "optimize",
    "pad_to_multiple",
    "warmup",
]
