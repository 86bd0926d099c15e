"""The passes from a traced joint graph to two graphs that keep a budget, in order.

Three calls, so that a plan can be made for several graphs at once, before or after they run:
`collect` (what is there to plan), `plan` (under which budget) and `compile_plan` (written out).

    capture -> annotate -> classify -> lower | solve | rewrite -> verify
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from fxremat.accumulate import accumulated_bytes
from fxremat.annotate import Annotation, annotate
from fxremat.capture import JointGraph, read_joint_graph
from fxremat.cpu_dropout import split_dropout
from fxremat.errors import VerificationError
from fxremat.kernel_layouts import with_kernel_layouts
from fxremat.lower import Lowering, lower
from fxremat.pipeline import Between, run_passes
from fxremat.plan import Options, Plan, plan_step
from fxremat.profile_ops import OpProfiles
from fxremat.recomputability import Form, Recomputability, recomputability
from fxremat.rewrite import Rewritten, rewrite
from fxremat.verify import check_peak
from fxremat_solvers import Simulation, baseline, simulate


@dataclass(frozen=True)
class Traced:
    """AOTAutograd's joint graph and what it says of it."""

    module: fx.GraphModule
    num_fwd_outputs: int
    static_lifetime_input_indices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Captured:
    """The graph as operations over storages."""

    traced: Traced
    joint: JointGraph

    def check(self) -> None:
        """Every operation reads what an earlier one, or the caller, made."""
        made = {s for s in self.joint.storages if s.maker not in self.joint.operations}
        for node in self.joint.operations:
            missing = [s for s in self.joint.storages_read(node) if s not in made]
            if missing:
                raise VerificationError(f"{node.name} reads {missing[0].maker} before it is made")
            made.update(self.joint.made_by.get(node, ()))

    def summary(self) -> str:
        forward, all_of_them = self.joint.first_backward, len(self.joint.operations)
        return (
            f"{all_of_them} operations, {forward} of them forward, "
            f"{len(self.joint.storages)} storages on {self.joint.device}"
        )

    def files(self) -> dict[str, str]:
        return {"joint.py": self.joint.module.print_readable(print_output=False)}


@dataclass(frozen=True)
class Annotated:
    """What each operation takes."""

    captured: Captured
    annotations: Mapping[fx.Node, Annotation]

    def check(self) -> None:
        """Every operation has its figures, and a size for each storage it makes."""
        joint = self.captured.joint
        for node in joint.operations:
            sizes = self.annotations[node].output_bytes
            if any(s.position >= len(sizes) for s in joint.made_by.get(node, ())):
                raise VerificationError(f"{node.name} makes more storages than were measured")

    def summary(self) -> str:
        measured = [a.seconds_from == "measured" for a in self.annotations.values()]
        seconds = sum(a.seconds for a in self.annotations.values())
        return f"{sum(measured)} of {len(measured)} times measured, {seconds:.3g} s a step"

    def files(self) -> dict[str, str]:
        head = f"{'op':40} {'seconds':>10} {'from':>9} {'FLOPs':>14} {'workspace':>12}  outputs\n"
        lines = [
            f"{node.name:40} {a.seconds:10.3g} {a.seconds_from:>9} {a.flops:14} "
            f"{a.workspace_bytes:12}  {a.output_bytes}\n"
            for node, a in self.annotations.items()
        ]
        return {"annotations.txt": head + "".join(lines)}


@dataclass(frozen=True)
class Classified:
    """How each operation may be recomputed."""

    annotated: Annotated
    forms: Mapping[fx.Node, Recomputability]

    def check(self) -> None:
        """Every operation has a form, and a reason where it is never recomputed."""
        for node in self.annotated.captured.joint.operations:
            form = self.forms[node]
            if form.form is Form.NEVER and not form.reason:
                raise VerificationError(f"{node.name} is never recomputed, without a reason")

    def summary(self) -> str:
        once = sum(1 for form in self.forms.values() if form.form is Form.NEVER)
        return f"{once} operations run once"

    def files(self) -> dict[str, str]:
        lines = [f"{node.name:40} {f.form.value}: {f.reason}\n" for node, f in self.forms.items()]
        return {"forms.txt": "".join(lines)}


@dataclass(frozen=True)
class Lowered:
    """The problem to solve, the way back from it, and its replay with nothing recomputed."""

    classified: Classified
    lowering: Lowering
    untouched: Simulation

    @property
    def joint(self) -> JointGraph:
        return self.classified.annotated.captured.joint

    def check(self) -> None:
        """Each operation is an op of the problem, under its own name."""
        for node, op in self.lowering.run_of.items():
            if self.lowering.problem.ops[op].name != node.name:
                raise VerificationError(f"{node.name} became another op's {op}")

    def summary(self) -> str:
        problem = self.lowering.problem
        return (
            f"{len(problem.ops)} ops over {len(problem.values)} values, "
            f"{self.untouched.peak_bytes:,} B with nothing recomputed"
        )

    def files(self) -> dict[str, str]:
        return {"problem.json": self.lowering.problem.to_json()}


@dataclass(frozen=True)
class Planned:
    """The schedule that was chosen."""

    lowered: Lowered
    plan: Plan

    def check(self) -> None:
        """The plan is within its budget."""
        if self.plan.peak_bytes > self.plan.budget_bytes:
            raise VerificationError("the plan needs more than its budget")

    def summary(self) -> str:
        plan = self.plan
        share = 100 * plan.extra_seconds / (plan.problem.baseline_cost or 1.0)
        return (
            f"{plan.peak_bytes:,} B of a budget of {plan.budget_bytes:,}, {share:.2f} % more time, "
            f"{plan.solution.solver}, {plan.solution.status}"
        )

    def files(self) -> dict[str, str]:
        names = [self.plan.problem.ops[op].name for op in self.plan.schedule]
        return {"schedule.json": self.plan.schedule.to_json(), "schedule.txt": "\n".join(names)}


@dataclass(frozen=True)
class Written:
    """The plan's forward and backward graph."""

    planned: Planned
    graphs: Rewritten

    def check(self) -> None:
        """Both graphs are well formed."""
        for module in (self.graphs.forward, self.graphs.backward):
            module.graph.lint()

    def summary(self) -> str:
        sizes = [len(m.graph.nodes) for m in (self.graphs.forward, self.graphs.backward)]
        return f"{sizes[0]} nodes forward, {sizes[1]} backward"

    def files(self) -> dict[str, str]:
        return {
            "forward.py": self.graphs.forward.print_readable(print_output=False),
            "backward.py": self.graphs.backward.print_readable(print_output=False),
        }


@dataclass(frozen=True)
class Capture:
    """Dropout in two ops on the CPU, storages and aliases, the layouts that kernels return.

    The first and the last of these change the traced graph in place: it is ours from here on.
    """

    profiles: OpProfiles
    name: str = "capture"

    def run(self, state: Traced) -> Captured:
        split_dropout(state.module)
        joint = read_joint_graph(state.module, state.num_fwd_outputs)
        return Captured(state, with_kernel_layouts(joint, self.profiles))


@dataclass(frozen=True)
class Annotate:
    """Seconds, FLOPs, bytes and workspace of each operation, by a cost model."""

    cost: str
    profiles: OpProfiles
    name: str = "annotate"

    def run(self, state: Captured) -> Annotated:
        return Annotated(state, annotate(state.joint, self.cost, self.profiles))


@dataclass(frozen=True)
class Classify:
    """May an operation be recomputed, and in which form."""

    name: str = "classify"

    def run(self, state: Annotated) -> Classified:
        return Classified(state, recomputability(state.captured.joint))


@dataclass(frozen=True)
class Lower:
    """Operations over storages become ops over values."""

    name: str = "lower"

    def run(self, state: Classified) -> Lowered:
        annotated = state.annotated
        lowering = lower(annotated.captured.joint, annotated.annotations, state.forms)
        return Lowered(state, lowering, simulate(lowering.problem, baseline(lowering.problem)))


@dataclass(frozen=True)
class Solve:
    """The cheapest schedule that is found within the budget."""

    options: Options
    largest_step_bytes: int = 0
    name: str = "solve"

    def run(self, state: Lowered) -> Planned:
        classified = state.classified
        plan = plan_step(
            state.joint,
            classified.annotated.annotations,
            classified.forms,
            state.lowering,
            state.untouched,
            self.options,
            self.largest_step_bytes,
        )
        return Planned(state, plan)


@dataclass(frozen=True)
class Rewrite:
    """The schedule as two graphs."""

    name: str = "rewrite"

    def run(self, state: Planned) -> Written:
        plan, traced = state.plan, state.lowered.classified.annotated.captured.traced
        graphs = rewrite(
            plan.joint,
            plan.lowering,
            plan.schedule,
            plan.forms,
            plan.annotations,
            static_lifetime_input_indices=traced.static_lifetime_input_indices,
        )
        return Written(state, graphs)


@dataclass(frozen=True)
class Verify:
    """What the graphs allocate, worked out without the plan, is what the plan promises."""

    name: str = "verify"

    def run(self, state: Written) -> Written:
        plan = state.planned.plan
        copies = accumulated_bytes(plan.joint)
        check_peak(state.graphs, plan.peak_bytes, plan.joint.memory, copies)
        return state


def collect(
    traced: Traced, cost: str, profiles: OpProfiles, between: Sequence[Between] = ()
) -> Lowered:
    """What there is to plan in one graph. New measurements of ops go to `profiles`."""
    passes = (Capture(profiles), Annotate(cost, profiles), Classify(), Lower())
    return run_passes(passes, traced, between)


def plan(
    lowered: Lowered,
    options: Options,
    largest_step_bytes: int = 0,
    between: Sequence[Between] = (),
) -> Planned:
    """The plan of one graph. Raises `BudgetInfeasible` where none is found within the budget.

    A budget that is a fraction is one of `largest_step_bytes`, the step memory with nothing
    recomputed of the steps before, or of this one's where that is more.
    """
    return run_passes((Solve(options, largest_step_bytes),), lowered, between)


def compile_plan(planned: Planned, between: Sequence[Between] = ()) -> Written:
    """The plan's graphs. Raises `VerificationError` where they would need more than it says."""
    return run_passes((Rewrite(), Verify()), planned, between)
