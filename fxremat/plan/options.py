"""The options of a plan, checked in one place for both doors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fxremat.annotate.annotate import check_cost_model
from fxremat.errors import OptionError
from fxremat.plan.budget import Budget
from fxremat.policy import NOTHING, Policy
from fxremat_solvers import PRESETS, SOLVERS

EXECUTORS = {
    "eager": "op by op",
    "inductor": "in the kernels that Inductor compiles",
    "auto": "by the faster of the two, op by op where kernels can't be planned",
}


@dataclass(frozen=True)
class Options:
    """How to plan: the budget, the solver, its time limit, seed and preset, the cost model.

    `executor` names what runs the step: op by op, or in the kernels that Inductor compiles.
    `policy` is what plans keep in any case. `threads` is how many a search uses, which changes no
    plan; None for this rank's share of the processors.
    """

    budget: Budget
    solver: str = "auto"
    cost: str = "auto"
    time_limit_s: float = 20.0
    seed: int = 0
    preset: str = "fast"
    executor: str = "eager"
    threads: int | None = None
    policy: Policy = NOTHING


def make_options(options: Mapping[str, Any]) -> Options:
    """Checked options. Raises `OptionError` for unknown, missing or bad ones, `BudgetError`."""
    known = set(inspect.signature(Options).parameters)
    if "effort" in options:
        raise OptionError(
            'effort is no option any more: give preset="fast" (the default), "thorough" or "brief"'
        )
    unknown = sorted(set(options) - known)
    if unknown:
        raise OptionError(
            f"unknown option{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}: "
            f"fxremat takes {', '.join(sorted(known))}"
        )
    if "budget" not in options:
        raise OptionError("the option 'budget' is missing: give bytes, a size or a fraction")
    limit: Any = options.get("time_limit_s", 1.0)
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0:
        raise OptionError(f"time_limit_s is {limit!r}: it must be a number of seconds above 0")
    seed: Any = options.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise OptionError(f"seed is {seed!r}: it must be an integer")
    threads: Any = options.get("threads")
    if threads is not None and (
        isinstance(threads, bool) or not isinstance(threads, int) or threads < 1
    ):
        raise OptionError(f"threads is {threads!r}: it must be an integer above 0, or None")
    given: dict[str, Any] = {**options, "budget": Budget.of(options["budget"])}
    given["policy"] = Policy.of(options.get("policy"))
    checked = Options(**given)
    if checked.solver not in SOLVERS:
        raise OptionError(f"unknown solver {checked.solver!r}: choose one of {', '.join(SOLVERS)}")
    if checked.preset not in PRESETS:
        raise OptionError(f"preset is {checked.preset!r}: choose one of {', '.join(PRESETS)}")
    check_cost_model(checked.cost)
    if checked.executor not in EXECUTORS:
        raise OptionError(
            f"unknown executor {checked.executor!r}: choose one of {', '.join(EXECUTORS)}"
        )
    return checked
