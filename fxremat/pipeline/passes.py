"""The passes from a traced joint graph to two graphs that keep a budget, in order.

Four calls, so that a plan can be made for several graphs at once, before or after they run: `read`
(what runs), `weigh` (what it takes), `plan` (under which budget) and `compile_plan` (written out).

    capture -> units -> annotate -> classify -> lower | solve | rewrite -> verify
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fxremat.annotate.annotate import annotate
from fxremat.classify import classify
from fxremat.execute.eager import Eager
from fxremat.execute.executor import Executor, check_units
from fxremat.graph import JointGraph
from fxremat.lower.accumulate import accumulated_bytes
from fxremat.lower.lowering import Lowering
from fxremat.measure.profile_ops import OpProfiles
from fxremat.memory_model import MemoryModel
from fxremat.must_recompute import remade
from fxremat.pipeline.runner import Between, run_passes
from fxremat.pipeline.states import (
    Annotated,
    Captured,
    Classified,
    Grouped,
    Lowered,
    Planned,
    Traced,
    Written,
)
from fxremat.plan.kept import recall_or_search
from fxremat.plan.options import Options
from fxremat.plan.plan import Search, plan_step
from fxremat.policy import NOTHING, Policy, kept_by
from fxremat.rewrite import rewrite
from fxremat.verify import check_peak
from fxremat_solvers import baseline

EAGER = Eager()


@dataclass(frozen=True)
class Capture:
    """What the executor runs of a traced graph, which is its own to change from here on."""

    profiles: OpProfiles
    executor: Executor
    name: str = "capture"

    def run(self, state: Traced) -> Captured:
        def memory_of(device: torch.device) -> MemoryModel:
            return replace(self.executor.memory(device), holds_outputs=not state.is_part)

        graph = self.executor.capture(
            state.module,
            state.num_fwd_outputs,
            state.static_lifetime_input_indices,
            memory_of,
            self.profiles,
        )
        return Captured(graph)


@dataclass(frozen=True)
class Units:
    """The nodes that the executor runs as one become one operation."""

    executor: Executor
    name: str = "units"

    def run(self, state: Captured) -> Grouped:
        graph = self.executor.units(state.graph)
        check_units(state.graph, graph)
        return Grouped(graph)


@dataclass(frozen=True)
class Annotate:
    """Seconds, FLOPs, bytes and workspace of each operation, by a cost model.

    With a graph that it is `like`, of the same operations at other sizes, nothing is timed.
    """

    cost: str
    profiles: OpProfiles
    executor: Executor
    like: JointGraph | None = None
    name: str = "annotate"

    def run(self, state: Grouped) -> Annotated:
        return Annotated(
            annotate(state.graph, self.cost, self.profiles, self.executor.cost, self.like)
        )


@dataclass(frozen=True)
class Classify:
    """May an operation be recomputed, and in which form, or must it; what is kept runs once."""

    policy: Policy = NOTHING
    name: str = "classify"

    def run(self, state: Annotated) -> Classified:
        kept = kept_by(self.policy, state.graph)
        if kept.unmet and state.graph.memory.holds_outputs:
            warnings.warn(
                f"no operation of the model is called {', '.join(map(repr, kept.unmet))}, is in "
                "such a module or is called so in its graph: that part of the policy keeps "
                "nothing. fxremat.explain lists the modules",
                stacklevel=2,
            )
        graph = classify(state.graph, kept.why)
        return Classified(self._with_regions(graph) if self.policy.regions == "honour" else graph)

    def _with_regions(self, graph: JointGraph) -> JointGraph:
        """The graph in which what must be recomputed is."""
        if graph.executor == "inductor":
            warnings.warn(
                'regions="honour" has no effect on Inductor\'s kernels, which make many values at '
                "once: use executor='eager'",
                stacklevel=2,
            )
            return graph
        found = remade(graph)
        if found.refused:
            names = [f"{o.name} ({why})" for o, why in list(found.refused.items())[:5]]
            more = ", ..." if len(found.refused) > 5 else ""
            warnings.warn(
                f"{len(found.refused)} operations are marked as MUST_RECOMPUTE that can't be "
                f"recomputed: what backward needs of them is held. They are {', '.join(names)}"
                f"{more}",
                stacklevel=2,
            )
        return found.graph


@dataclass(frozen=True)
class Lower:
    """Operations over storages become ops over values."""

    name: str = "lower"

    def run(self, state: Classified) -> Lowered:
        lowering = Lowering.apply(state.graph)
        plain = lowering.plain
        return Lowered(lowering, plain.replay(baseline(plain.problem)))


@dataclass(frozen=True)
class Solve:
    """The cheapest schedule that is found within the budget."""

    options: Options
    largest_step_bytes: int = 0
    search: Search = recall_or_search
    name: str = "solve"

    def run(self, state: Lowered) -> Planned:
        return Planned(
            plan_step(
                state.lowering,
                state.baseline,
                self.options,
                self.largest_step_bytes,
                self.search,
            )
        )


@dataclass(frozen=True)
class Rewrite:
    """The schedule as two graphs."""

    name: str = "rewrite"

    def run(self, state: Planned) -> Written:
        return Written(state.plan, rewrite(state.plan.graph, state.plan.program))


@dataclass(frozen=True)
class Verify:
    """What the graphs allocate, worked out without the plan, is no more than the plan promises."""

    executor: Executor
    name: str = "verify"

    def run(self, state: Written) -> Written:
        graph = state.plan.graph
        copies = accumulated_bytes(graph)
        check_peak(state.graphs, state.plan.peak_bytes, self.executor, graph.memory, copies)
        return state


def read(
    traced: Traced,
    profiles: OpProfiles,
    between: Sequence[Between] = (),
    executor: Executor = EAGER,
) -> Grouped:
    """The graph as it runs, with nothing known of times. New measurements go to `profiles`."""
    return run_passes((Capture(profiles, executor), Units(executor)), traced, between)


def weigh(
    grouped: Grouped,
    cost: str,
    profiles: OpProfiles,
    between: Sequence[Between] = (),
    executor: Executor = EAGER,
    like: JointGraph | None = None,
    policy: Policy = NOTHING,
) -> Lowered:
    """What there is to plan in one graph. May be asked again, where more has been measured since.

    New measurements of ops go to `profiles`. With a graph that it is `like` times come from there,
    and only memory is measured.
    """
    passes = (Annotate(cost, profiles, executor, like), Classify(policy), Lower())
    return run_passes(passes, grouped, between)


def plan(
    lowered: Lowered,
    options: Options,
    largest_step_bytes: int = 0,
    between: Sequence[Between] = (),
    search: Search = recall_or_search,
) -> Planned:
    """The plan of one graph. Raises `BudgetInfeasible` where none is found within the budget.

    A budget that is a fraction is one of `largest_step_bytes`, the step memory with nothing
    recomputed of the steps before, or of this one's where that is more.
    """
    return run_passes((Solve(options, largest_step_bytes, search),), lowered, between)


def compile_plan(
    planned: Planned, between: Sequence[Between] = (), executor: Executor = EAGER
) -> Written:
    """The plan's graphs. Raises `VerificationError` where they would need more than it says."""
    return run_passes((Rewrite(), Verify(executor)), planned, between)
