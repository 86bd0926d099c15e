"""What stands between the passes: frozen states, each able to check, sum up and show itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from fxremat.errors import VerificationError
from fxremat.graph import Form, JointGraph
from fxremat.lower.lowering import Lowering
from fxremat.plan.plan import Plan
from fxremat.rewrite import Rewritten
from fxremat_solvers import Simulation


@dataclass(frozen=True)
class Traced:
    """AOTAutograd's joint graph and what it says of it.

    `is_part` says that it is one of several graphs of its step.
    """

    module: fx.GraphModule
    num_fwd_outputs: int
    static_lifetime_input_indices: tuple[int, ...] = ()
    is_part: bool = False


@dataclass(frozen=True)
class Captured:
    """The graph as operations over storages."""

    graph: JointGraph

    def check(self) -> None:
        """Every operation reads what an earlier one, or the caller, made."""
        graph = self.graph
        made = {storage for storage in graph.storages if storage.maker.op != "call_function"}
        for operation in graph.operations:
            missing = [storage for storage in operation.reads if storage not in made]
            if missing:
                raise VerificationError(
                    f"{operation.name} reads {missing[0].maker} before it is made"
                )
            made.update(operation.makes)

    def summary(self) -> str:
        graph = self.graph
        return (
            f"{len(graph.operations)} operations, {graph.first_backward} of them forward, "
            f"{len(graph.storages)} storages on {graph.device}"
        )

    def files(self) -> dict[str, str]:
        return {"joint.py": self.graph.module.print_readable(print_output=False)}


@dataclass(frozen=True)
class Grouped:
    """The graph in the units of its executor."""

    graph: JointGraph

    def check(self) -> None:
        """As of the captured graph: what a unit reads is made by an earlier one."""
        Captured(self.graph).check()

    def summary(self) -> str:
        joined = sum(1 for operation in self.graph.operations if len(operation.nodes) > 1)
        return f"{len(self.graph.operations)} units, {joined} of several nodes"

    def files(self) -> dict[str, str]:
        return {"units.txt": "".join(f"{o.name}\n" for o in self.graph.operations)}


@dataclass(frozen=True)
class Annotated:
    """The graph with the cost of each operation."""

    graph: JointGraph

    def check(self) -> None:
        """Every operation has its figures, and a size for each storage it makes."""
        for operation in self.graph.operations:
            if not operation.is_annotated:
                raise VerificationError(f"{operation.name} has no cost")
            if set(operation.cost.made_bytes) != set(operation.makes):
                raise VerificationError(f"{operation.name} makes other storages than were measured")

    def summary(self) -> str:
        costs = [operation.cost for operation in self.graph.operations]
        measured = sum(1 for cost in costs if cost.seconds_from == "measured")
        seconds = sum(cost.seconds for cost in costs)
        return f"{measured} of {len(costs)} times measured, {seconds:.3g} s a step"

    def files(self) -> dict[str, str]:
        head = f"{'op':40} {'seconds':>10} {'from':>9} {'FLOPs':>14} {'workspace':>12}  makes\n"
        lines = [
            f"{o.name:40} {o.cost.seconds:10.3g} {o.cost.seconds_from:>9} {o.cost.flops:14} "
            f"{o.cost.workspace_bytes:12}  {[*o.cost.made_bytes.values()]}\n"
            for o in self.graph.operations
        ]
        return {"annotations.txt": head + "".join(lines)}


@dataclass(frozen=True)
class Classified:
    """The graph with the mode in which each operation may be recomputed."""

    graph: JointGraph

    def check(self) -> None:
        """Every operation has a mode, and a reason where it is never recomputed."""
        for operation in self.graph.operations:
            if not operation.is_classified:
                raise VerificationError(f"{operation.name} has no mode")
            if operation.mode.form is Form.NEVER and not operation.mode.reason:
                raise VerificationError(f"{operation.name} is never recomputed, without a reason")

    def summary(self) -> str:
        once = sum(1 for o in self.graph.operations if o.mode.form is Form.NEVER)
        return f"{once} operations run once"

    def files(self) -> dict[str, str]:
        lines = [
            f"{o.name:40} {o.mode.form.value}: {o.mode.reason}\n" for o in self.graph.operations
        ]
        return {"modes.txt": "".join(lines)}


@dataclass(frozen=True)
class Lowered:
    """The problem to solve, the way back from it, and its replay with nothing recomputed."""

    lowering: Lowering
    baseline: Simulation

    def check(self) -> None:
        """Each operation is an op of the problem, once, under its own name.

        Those that make again what backward must not find made are others beside them.
        """
        lowering = self.lowering
        found = [
            (operation, op.name)
            for k, op in enumerate(lowering.problem.ops)
            if k not in lowering.again and (operation := lowering.operation_of[k]) is not None
        ]
        if [operation for operation, _ in found] != list(lowering.graph.operations):
            raise VerificationError("the problem's ops are not the graph's operations")
        for operation, name in found:
            if operation.name != name:
                raise VerificationError(f"{operation.name} became the op {name}")

    def summary(self) -> str:
        problem = self.lowering.problem
        return (
            f"{len(problem.ops)} ops over {len(problem.values)} values, "
            f"{self.baseline.peak_bytes:,} B with nothing recomputed"
        )

    def files(self) -> dict[str, str]:
        return {"problem.json": self.lowering.problem.to_json()}


@dataclass(frozen=True)
class Planned:
    """The schedule that was chosen."""

    plan: Plan

    def check(self) -> None:
        """The plan is within its budget."""
        if self.plan.peak_bytes > self.plan.budget_bytes:
            raise VerificationError("the plan needs more than its budget")

    def summary(self) -> str:
        plan = self.plan
        share = 100 * plan.extra_seconds / (plan.baseline_seconds or 1.0)
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

    plan: Plan
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
