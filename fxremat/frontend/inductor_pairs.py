"""Two graphs for Inductor within a budget, by what its code for them needs.

Inductor moves ops and fuses kernels, so that no schedule of ours survives as it is. So pairs are
tried: Inductor writes its code for one, which is replayed on fake tensors, and what that needs is
held against the budget, before any kernel is compiled.

1. The pair that plain `torch.compile` takes. Where it fits nothing changes.
2. Plans op by op within a target, which is lowered by as much as the code needs more. Each is tried
   as a *cut*, of which only what is kept for backward is taken over, and as it is written.
3. Of those that fit, the cheapest. Where none does, the one that needs the least.

What draws from a generator runs once: seeds, of which Inductor's dropout is a function, are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx

from fxremat import inductor_hooks, torch_hooks
from fxremat.capture.read import read_joint_graph
from fxremat.errors import BudgetInfeasible
from fxremat.execute.eager import Eager
from fxremat.graph import Cost, Form, JointGraph, Mode, Operation
from fxremat.lower.accumulate import accumulated_bytes
from fxremat.measure.profile_ops import OpProfiles, profile_ops, signatures
from fxremat.memory_model import MemoryModel
from fxremat.nodes import is_op, returned
from fxremat.pipeline.observe import observers
from fxremat.pipeline.passes import Annotate, Classify, Lower, plan, read
from fxremat.pipeline.runner import run_passes
from fxremat.pipeline.states import Classified, Lowered, Traced
from fxremat.plan.budget import Budget
from fxremat.plan.options import Options
from fxremat.plan.plan import Plan
from fxremat.rewrite import rewrite

Halves = tuple[fx.GraphModule, fx.GraphModule]

# So many targets are tried.
_TARGETS = 4
# What Inductor's code needs too much is taken off the target, and a little more.
_MARGIN = 0.98
# Inductor reads and writes the values of several such ops once.
_FUSED = 0.3


@dataclass(frozen=True)
class Tried:
    """Two halves and what Inductor's code for them needs; `seconds` go for recomputation."""

    name: str
    halves: Halves
    peak_bytes: int
    seconds: float = 0.0


@dataclass(frozen=True)
class _InductorsGraph(Eager):
    """Plans the ops that Inductor is given, as they are; they run otherwise."""

    name: str = "inductor's graph"

    def capture(
        self,
        joint: fx.GraphModule,
        num_fwd_outputs: int,
        static_lifetime_input_indices: tuple[int, ...],
        memory_of: Callable[[torch.device], MemoryModel],
        profiles: OpProfiles,  # noqa: ARG002
    ) -> JointGraph:
        return read_joint_graph(joint, num_fwd_outputs, static_lifetime_input_indices, memory_of)

    def cost(self, unit: Operation, nodes: Sequence[Cost]) -> Cost:
        (cost,) = nodes
        target = unit.node.target
        is_fused = is_op(target) and torch.Tag.pointwise in target.tags
        return replace(cost, seconds=cost.seconds * _FUSED) if is_fused else cost


@dataclass(frozen=True)
class _DrawOnce:
    """What draws from a generator isn't run again: its state is no business of Inductor's."""

    name: str = "draw once"

    def run(self, state: Classified) -> Classified:
        once = Mode(Form.NEVER, "draws from a generator")
        operations = [
            replace(each, mode=once) if each.mode.form is Form.REPLAY_RNG else each
            for each in state.graph.operations
        ]
        return Classified(state.graph.with_operations(operations))


@dataclass(frozen=True)
class Search:
    """What is asked for one joint graph, which is changed."""

    joint: fx.GraphModule
    num_fwd_outputs: int
    static: tuple[int, ...]
    options: Options
    profiles: OpProfiles

    def within_budget(self) -> tuple[Tried, int]:
        """The pair to take, and the budget in bytes; the pair may need more."""
        inductor_hooks.merge_equal_nodes(self.joint)
        lowered = self._lowered()
        plain = self._try("as torch.compile", lowered, self._min_cut(), 0.0)
        budget_bytes = self.options.budget.to_bytes(plain.peak_bytes)
        if plain.peak_bytes <= budget_bytes:
            return plain, budget_bytes
        tried = list[Tried]()
        for ordered in (False, True):
            tried += self._planned(lowered, budget_bytes, ordered=ordered)
            fit = [each for each in tried if each.peak_bytes <= budget_bytes]
            if fit:
                return min(fit, key=lambda each: each.seconds), budget_bytes
        return min([plain, *tried], key=lambda each: each.peak_bytes), budget_bytes

    def _lowered(self) -> Lowered:
        """The joint graph as ops to plan."""
        executor, between = _InductorsGraph(), observers()
        traced = Traced(self.joint, self.num_fwd_outputs, self.static)
        grouped = read(traced, self.profiles, between, executor)
        annotate = Annotate(self.options.cost, self.profiles, executor)
        return run_passes((annotate, Classify(), _DrawOnce(), Lower()), grouped, between)

    def _planned(self, lowered: Lowered, budget_bytes: int, *, ordered: bool) -> Iterator[Tried]:
        """Pairs by plans within ever lower targets, to the first that fits."""
        target, tried = budget_bytes, None
        for _ in range(_TARGETS):
            options = replace(self.options, budget=Budget(nbytes=target))
            try:
                found = plan(lowered, options, 0, observers()).plan
            except BudgetInfeasible as error:
                # Kernels that are fused may need less than ops one by one.
                if tried:
                    return
                target = error.floor_bytes
                continue
            halves = self._ordered(found) if ordered else self._cut(found)
            name = "plan" if ordered else "cut"
            tried = self._try(name, lowered, halves, found.extra_seconds)
            yield tried
            if tried.peak_bytes <= budget_bytes:
                return
            target = min(
                int(target * budget_bytes / tried.peak_bytes * _MARGIN), found.peak_bytes - 1
            )

    def _min_cut(self) -> Halves:
        """The pair that plain `torch.compile` takes."""
        copied = inductor_hooks.copy_graph(self.joint)
        return inductor_hooks.min_cut(copied, self.num_fwd_outputs, self.static)

    def _ordered(self, found: Plan) -> Halves:
        """The graphs of a plan as it is."""
        written = rewrite(found.graph, found.program)
        return written.forward, written.backward

    def _cut(self, found: Plan) -> Halves:
        """What a plan keeps for backward is kept; all else is made again where it is needed."""
        forward, _ = self._ordered(found)
        kept = {node.name for node in returned(forward.graph)[self.num_fwd_outputs :]}
        copied = inductor_hooks.copy_graph(self.joint)
        saved = [node for node in copied.graph.nodes if node.name in kept]
        first, second = torch_hooks.extract_forward_and_backward(
            copied,
            saved,
            num_fwd_outputs=self.num_fwd_outputs,
            static_lifetime_input_indices=self.static,
        )
        return first, inductor_hooks.as_autograd_orders(second)

    def _try(self, name: str, lowered: Lowered, halves: Halves, seconds: float) -> Tried:
        """A pair with what Inductor's code for it needs."""
        graph = lowered.lowering.graph
        forward, backward = halves
        moments = inductor_hooks.replay_pair(
            inductor_hooks.generate_pair(forward, backward, self.num_fwd_outputs),
            forward,
            backward,
            self.num_fwd_outputs,
            graph.memory.new_tensor,
            graph.memory.is_held,
        )
        keys = signatures(moment.op for moment in moments if moment.op is not None)
        found = profile_ops(keys, graph.device, self.profiles, timing_limit_s=0)
        peak = moments[-1].nbytes + accumulated_bytes(graph)
        for moment in moments:
            profile = None if moment.op is None else found.get(keys.get(moment.op, ""))
            peak = max(peak, moment.nbytes + (profile.workspace_bytes if profile else 0))
        return Tried(name, halves, peak, seconds)
