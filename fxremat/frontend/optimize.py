"""`optimize`: a model (or a function of the whole loss) as one that trains within a budget."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import nn

from fxremat import torch_hooks
from fxremat.errors import DeviceError, OptionError
from fxremat.frontend.backend import Backend
from fxremat.frontend.bypass import watch_parameters
from fxremat.frontend.compiled import Compiled
from fxremat.frontend.drop_in import drop_in, original
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.frontend.step_budget import StepBudget
from fxremat.plan.budget import Budget
from fxremat.plan.options import make_options
from fxremat.policy import Policy

F = TypeVar("F", bound=Callable[..., Any])


def optimize(
    model: F,
    *,
    budget: int | float | str | Budget | StepBudget,
    example_inputs: object = None,
    solver: str = "auto",
    cost: str = "auto",
    time_limit_s: float = 20.0,
    seed: int = 0,
    preset: str = "fast",
    executor: str = "eager",
    threads: int | None = None,
    policy: Policy | Sequence[str] | str | None = None,
    fullgraph: bool = False,
    regions: str | None = None,
    **others: Any,
) -> F:
    """A drop-in for `model` whose training steps stay within `budget`.

    `model` is a module, or any function of tensors (for instance one that returns the whole
    loss). A module gives a module of the same class with the same parameters, buffers, hooks and
    `state_dict()` keys; the original stays as it is and shares its parameters.

    `budget` caps the step memory: an int is bytes, a str a size such as ``"6GiB"``, a float in
    (0, 1] a fraction of the step memory with nothing recomputed, of the largest step seen so far;
    see `Budget`. It holds for one forward and its backward, for every input shape, which gets a
    plan of its own: the first by a search, further ones at once from those before, and by a search
    once they have come back so often that it is worth it. Compilation happens at the first call
    that records gradients; the plan is made at once where `example_inputs` are given (a tensor, a
    tuple of arguments or a dict of keyword arguments), by tracing alone: the model doesn't run.
    Where none are recorded (`torch.no_grad`, nothing that requires them) the model runs as it is.

    `solver` is a name of `fxremat_solvers.SOLVERS`, `cost` one of "auto", "flops", "roofline" and
    "measured", `time_limit_s` a stop for the solver. `preset` says how "auto" searches: "fast"
    keeps planning shorter than tracing, "thorough" takes some seconds more and gains a little,
    "brief" takes a part of a second.
    `threads` are those of the search: by default the processors, shared by the ranks of a machine.

    `executor` says what runs the step: "eager" runs op by op, "inductor" the kernels that Inductor
    compiles, each as often as the plan says. The latter rounds as `torch.compile` does, so that
    gradients are bit for bit those of its kernels, not of the model as it is. "auto" takes the
    faster one, by the measured times of ops and kernels, and the one that can be planned; the
    report says which and why. With a `policy` it is "eager", whose ops can be kept one by one.

    `policy` has patterns of ops and modules whose results are kept in any case; see `Policy`, and
    `fxremat.keep` for one value.

    A model that Dynamo breaks into several graphs is planned as one step: the first one runs by the
    plans that save the least and is recorded, from the second on one plan a graph is chosen for all
    together (`explain_step`). With `fullgraph`, and for `example_inputs`, breaks are an error.

    Raises `BudgetError`, `OptionError`, `DeviceError` at once; `BudgetInfeasible`,
    `GraphBreakError` and `UnsupportedGraphError` when it plans. Warns `UnplannedStepWarning`,
    once, where a training step turns out to have run without its plan.
    """
    if not callable(model):
        raise OptionError(
            f"model is a {type(model).__name__}: give an nn.Module or a function of tensors"
        )
    if isinstance(model, type):
        raise OptionError(f"model is the class {model.__name__}: give an instance of it")
    if regions not in (None, "blocks"):
        raise OptionError(f'regions is {regions!r}: it is "blocks" or left out')
    if regions is not None and fullgraph:
        raise OptionError('regions="blocks" makes several graphs: leave it or fullgraph out')
    shared = budget if isinstance(budget, StepBudget) else None
    if shared is None and regions is not None:
        shared = StepBudget(budget)
    given: dict[str, Any] = {
        "budget": budget if shared is None else shared.budget,
        "solver": solver,
        "cost": cost,
        "time_limit_s": time_limit_s,
        "seed": seed,
        "preset": preset,
        "executor": executor,
        "threads": threads,
        "policy": Policy.of(policy),
        **others,
    }
    options = make_options(given)
    module = original(model) if isinstance(model, nn.Module) else None
    if module is not None:
        _check_wrapper(module)
        _check_device(module)
    if shared is None:
        backend = Backend.of(options, WholeStep(fullgraph=fullgraph))
    else:
        backend = shared.backend(options)
    function: Callable[..., Any] = model if module is None else module.forward
    again = budget if isinstance(budget, StepBudget) else options.budget.plain
    compiled = Compiled.of(
        function,
        backend,
        module,
        fullgraph=fullgraph,
        budget=shared,
        blocks=regions is not None,
        asked={**given, "budget": again, "fullgraph": fullgraph, "regions": regions},
    )
    if example_inputs is not None:
        compiled.plan_ahead(example_inputs)
    if module is None:
        return cast("F", _optimized_function(model, compiled))
    watch_parameters(module, backend.steps)
    return cast("F", drop_in(module, compiled, optimize))


def _optimized_function(function: Callable[..., Any], compiled: Compiled) -> Callable[..., Any]:
    @functools.wraps(function)
    def optimized(*args: Any, **kwargs: Any) -> Any:
        return compiled(*args, **kwargs)

    optimized.__fxremat__ = compiled  # type: ignore[attr-defined]
    return optimized


def _check_wrapper(model: nn.Module) -> None:
    """Refuse what logs and communicates around the forward of the module that it holds."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if isinstance(model, torch.jit.ScriptModule):
        raise OptionError(
            f"the model is a {type(model).__name__}, whose Python code is gone, so that it can't "
            "be traced: optimize the module that it was scripted or traced from"
        )
    if torch_hooks.compiles_itself(model):
        raise OptionError(
            "model.compile() was called before, which compiles around what optimize makes, so that "
            "no plan would run: leave it out, optimize compiles the model too"
        )
    name = next((wrapper.__name__ for wrapper in wrappers if isinstance(model, wrapper)), None)
    if name is not None:
        raise OptionError(
            f"the model is wrapped in {name}, whose own forward is no part of a graph: optimize "
            f"first, then wrap ({name}(fxremat.optimize(model, ...)))"
        )


def _check_device(model: nn.Module) -> None:
    tensors = (*model.parameters(), *model.buffers())
    if any(t.device.type == "cuda" for t in tensors) and not torch.cuda.is_available():
        raise DeviceError("the model is on a CUDA device, but none is available here")
    devices = {t.device for t in tensors if t.device.type not in ("cpu", "meta")}
    if len(devices) > 1:
        raise DeviceError(
            f"the model spans {sorted(map(str, devices))}: one budget is for one device; optimize "
            "the part on each device by itself"
        )
