"""A budget for hosts that only know Inductor: a partitioner of its own kind.

`inductor_options` is for ``torch.compile(model, options=...)``, `installed` for libraries that call
it themselves. Inductor asks the partitioner for a forward and a backward graph, and compiles both.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from fxremat import inductor_hooks
from fxremat.errors import UnsupportedGraphError
from fxremat.frontend.inductor_pairs import Halves, Search
from fxremat.measure.profile_ops import OpProfiles
from fxremat.plan.budget import Budget
from fxremat.plan.options import Options, make_options
from fxremat_solvers.version import __version__

_LOG = logging.getLogger("fxremat")

_WAY_OUT = (
    'torch.compile(..., backend="fxremat", options={"budget": ..., "executor": "inductor"}) plans '
    "Inductor's kernels as they are"
)


def inductor_options(
    budget: int | float | str | Budget,
    *,
    solver: str = "auto",
    cost: str = "roofline",
    time_limit_s: float = 20.0,
    seed: int = 0,
    preset: str = "brief",
) -> dict[str, Any]:
    """Options for ``torch.compile(model, options=...)``, whose backend is Inductor.

    Each graph is held to `budget` by what Inductor's own code for it needs, replayed before it is
    compiled; a float is a fraction of what plain `torch.compile`'s needs. Where nothing was found
    that fits, what needs the least runs, and a warning says so. ``backend="fxremat"`` with the
    option ``"executor": "inductor"`` keeps budgets to the byte, and those of several graphs.
    """
    return {
        "custom_partitioner_fn": Partitioner(
            make_options(
                {
                    "budget": budget,
                    "solver": solver,
                    "cost": cost,
                    "time_limit_s": time_limit_s,
                    "seed": seed,
                    "preset": preset,
                }
            )
        )
    }


def installed(budget: int | float | str | Budget, **options: Any) -> AbstractContextManager[None]:
    """Within, everything that Inductor compiles on this thread is held to `budget`.

    For libraries that call `torch.compile` themselves. Takes what `inductor_options` takes. What
    was compiled before stays as it is (`torch._dynamo.reset()` drops it), and so does afterwards
    what was compiled within.
    """
    return inductor_hooks.configured_by(inductor_options(budget, **options))


@dataclass(frozen=True)
class Chosen:
    """What runs of one graph: which pair, what Inductor's code for it needs, under which budget."""

    name: str
    peak_bytes: int
    budget_bytes: int


@dataclass(eq=False)
class Partitioner:
    """What Inductor calls with a joint graph, when its own joint passes have run.

    `chosen` says what was taken, in order; `kept` says that the last keeps its budget.
    """

    options: Options
    profiles: OpProfiles = field(default_factory=OpProfiles)
    chosen: list[Chosen] = field(default_factory=list[Chosen])
    kept: bool = True

    def __post_init__(self) -> None:
        inductor_hooks.be_partitioner(Partitioner)

    def __deepcopy__(self, _memo: object) -> Partitioner:
        """Inductor copies its configuration: the partitioner stays one."""
        return self

    def uuid(self) -> object:
        """What Inductor's caches know it by: all that it was asked, and this version.

        None, so that nothing is cached, where a budget isn't kept: it would not be said again.
        """
        return ("fxremat", __version__, repr(self.options)) if self.kept else None

    def __call__(
        self,
        joint: fx.GraphModule,
        _inputs: object,
        *,
        num_fwd_outputs: int,
        static_lifetime_input_indices: Sequence[int] | None = None,
        **_unused: object,
    ) -> Halves:
        static = tuple(static_lifetime_input_indices or ())
        search = Search(joint, num_fwd_outputs, static, self.options, self.profiles)
        try:
            found, budget_bytes = search.within_budget()
        except Exception as error:
            # A host's training goes on, as it would have without a budget.
            self.kept = False
            what = "" if isinstance(error, UnsupportedGraphError) else f"{type(error).__name__}: "
            warnings.warn(
                f"a graph is compiled without a plan, so that no budget holds: {what}{error}",
                stacklevel=2,
            )
            return inductor_hooks.min_cut(joint, num_fwd_outputs, static)
        self.kept = found.peak_bytes <= budget_bytes
        self.chosen.append(Chosen(found.name, found.peak_bytes, budget_bytes))
        _LOG.info(
            "Inductor's code for a graph needs %s B of a budget of %s (%s)",
            f"{found.peak_bytes:,}",
            f"{budget_bytes:,}",
            found.name,
        )
        if not self.kept:
            warnings.warn(
                f"the budget of {budget_bytes:,} B is not kept: the least that was found for what "
                f"Inductor makes of a graph is {found.peak_bytes:,} B, which runs. It fuses "
                f"kernels regardless of a plan. {_WAY_OUT}; or give a larger budget",
                stacklevel=2,
            )
        return found.halves
