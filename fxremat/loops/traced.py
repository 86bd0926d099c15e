"""One step of a loop and its reversal as one graph, traced once for all steps.

Dynamo traces the step, with what it uses beside its arguments as inputs. To its graph come *hands*:
one output more for each tensor whose gradient is a total over the steps, made last. The tangent of
a hand is the total so far. The engine runs hands first, so that in the traced backward, as in the
plain loop's, the total is the first summand.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.errors import GraphBreakError, LoopError, UnsupportedGraphError
from fxremat.execute.executor import Executor
from fxremat.loops.outputs import OutputKind
from fxremat.loops.reachable import reachable
from fxremat.loops.recurrence import Leaf, Recurrence
from fxremat.measure.profile_ops import OpProfiles
from fxremat.nodes import returned
from fxremat.pipeline.observe import observers
from fxremat.pipeline.partitioner import partitioner
from fxremat.pipeline.passes import compile_plan, read, weigh
from fxremat.pipeline.states import Lowered, Planned, Traced
from fxremat.plan.options import make_options
from fxremat.plan.plan import follow
from fxremat_solvers import baseline


@dataclass(frozen=True)
class Argument:
    """An argument of the graph: a leaf of the state, one of the inputs, the step's number, or a
    tensor of its own, the same in all steps."""

    leaf: int | None = None
    input: int | None = None
    number: bool = False
    tensor: torch.Tensor | None = None


@dataclass(frozen=True)
class Result:
    """Where a tensor that the step returns comes from: a place among what the graph makes, or a
    leaf that the step was given. So does a number that stays the same."""

    made: int | None = None
    given: int | None = None


@dataclass(frozen=True)
class TracedStep:
    """What there is to plan of a step, and what goes in and comes out where.

    The graph makes `made` tensors, of which `results` and `output_places` (of kinds `kinds`) are
    the state and the step's output; then come the hands of the arguments `handed`. `tangents` has
    the traced output of each gradient that the backward is given. `first` is a state as the step
    was traced with it, `flags` which of its leaves require gradients. `reached` are the ids of the
    graph's own tensors that are found from the step.
    """

    step: Callable[..., Any]
    lowered: Lowered
    executor: Executor
    cost: str
    first: tuple[Leaf, ...]
    flags: tuple[bool, ...]
    arguments: tuple[Argument, ...]
    inputs_wanted: tuple[int, ...]
    made: int
    results: tuple[Result, ...]
    output_places: tuple[Result, ...]
    output_nesting: Any
    kinds: tuple[OutputKind, ...]
    handed: tuple[int, ...]
    tangents: Mapping[str, int]
    reached: frozenset[int]
    holds_for: Callable[[int], bool] | None

    @cached_property
    def captured(self) -> tuple[torch.Tensor, ...]:
        """The tensors beside the arguments whose gradients are totals."""
        tensors = [self.arguments[place].tensor for place in self.handed]
        return tuple(t for t in tensors if t is not None)

    @cached_property
    def passed_on(self) -> frozenset[int]:
        """The leaves of the state that the step returns as they came."""
        places = (*self.results, *self.output_places)
        return frozenset(place.given for place in places if place.given is not None)


@dataclass
class _Seen:
    """What a call of the step showed: its graph's inputs and outputs, and where those went."""

    inputs: Sequence[Any] = ()
    outputs: Sequence[Any] = ()
    graphs: int = 0


def _hand(tensor: torch.Tensor) -> torch.Tensor:
    return cast("Any", _Hand).apply(tensor)


class _Hand(torch.autograd.Function):
    """What hands out a total: its gradient is the tensor's first."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return torch.empty_like(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return gradients[0]


def traced_step(
    recurrence: Recurrence,
    first: Sequence[Leaf],
    executor: Executor,
    cost: str = "auto",
) -> TracedStep:
    """Trace a step and its reversal, and weigh its operations.

    Runs the step once or twice. Raises `GraphBreakError` where it isn't one graph,
    `UnsupportedGraphError` for what can't be planned, and `LoopError` for what differs from step to
    step.
    """
    return _Tracing(recurrence, list(first), executor, cost).run()


class _Tracing:
    def __init__(
        self, recurrence: Recurrence, first: list[Leaf], executor: Executor, cost: str
    ) -> None:
        self.recurrence = recurrence
        self.executor = executor
        self.cost = cost
        if len({id(t) for t in first if isinstance(t, torch.Tensor)}) != sum(
            isinstance(t, torch.Tensor) for t in first
        ):
            raise LoopError(
                "compile=True: the state holds one tensor twice, whose gradient is one sum: clone "
                "one of them, or leave compile out"
            )
        self.first = [_own(t) if isinstance(t, torch.Tensor) else t for t in first]
        # Where kernels are compiled a number is a tensor of no dimension. Op by op it stays one: a
        # tensor would round otherwise.
        self.number: Any = torch_hooks.changing_number(0)
        if executor.name != "eager":
            self.number = torch.tensor(0)
        self.inputs = [x.detach() for x in recurrence.inputs(0)]
        for given, whole in zip(self.inputs, recurrence.xs, strict=True):
            given.requires_grad_(whole.requires_grad)

    def run(self) -> TracedStep:
        seen, results, output_places, nesting, flags = self._run_until_settled()
        kinds = self._kinds(seen, results, output_places, flags)
        return self._trace(seen, results, output_places, nesting, flags, kinds)

    # ---- what goes where

    def _arguments(self) -> tuple[Any, Any]:
        state = torch_hooks.unflatten_tree(self.first, self.recurrence.nesting)
        if not self.recurrence.xs:
            return state, self.number
        return state, torch_hooks.unflatten_tree(self.inputs, self.recurrence.xs_nesting)

    def _run_until_settled(self) -> tuple[_Seen, list[Result], list[Result], Any, list[bool]]:
        """Run the step until it is known which leaves of the state require gradients."""
        seen = _Seen()

        def backend(module: fx.GraphModule, _inputs: object) -> Callable[..., Any]:
            seen.graphs += 1

            def call(*arguments: Any) -> Any:
                seen.inputs = arguments
                with torch.enable_grad():
                    seen.outputs = module(*arguments)
                return seen.outputs

            return torch_hooks.without_dynamo(call)

        compiled = torch_hooks.compile_whole(self.recurrence.step, backend, len(self.first) + 2)
        while True:
            before = seen.graphs
            with torch.enable_grad(), _readable():
                made = compiled(*self._arguments())
            if seen.graphs == before:
                raise LoopError("compile=True: the step computes nothing with tensors")
            output = None
            if self.recurrence.has_outputs:
                made, output = made
            leaves, _ = torch_hooks.flatten_tree(made)
            changed = False
            for own, new in zip(self.first, leaves, strict=True):
                if isinstance(new, torch.Tensor) and new.requires_grad and not own.requires_grad:
                    own.requires_grad_()
                    changed = True
            if changed:
                continue
            outputs, nesting = torch_hooks.flatten_tree(output)
            places = [self._place(seen, leaf, k) for k, leaf in enumerate(leaves)]
            if output is None:
                outputs = []
            output_places = [self._place(seen, leaf, None) for leaf in outputs]
            flags = [isinstance(t, torch.Tensor) and t.requires_grad for t in self.first]
            return seen, places, output_places, nesting, flags

    def _place(self, seen: _Seen, leaf: Leaf, index: int | None) -> Result:
        """Where a leaf of what the step returned comes from."""
        if not isinstance(leaf, torch.Tensor):
            if index is None or leaf != self.first[index]:
                raise LoopError(
                    f"compile=True: the step returned the number {leaf!r}, which a trace has as it "
                    "was: make it a tensor (torch.tensor), or leave compile out"
                )
            return Result(given=index)
        for made, other in enumerate(seen.outputs):
            if other is leaf:
                return Result(made=made)
        for given, other in enumerate(self.first):
            if other is leaf:
                return Result(given=given)
        raise LoopError(
            f"compile=True: the step returned a tensor of shape {list(leaf.shape)} that it neither "
            "made nor was given as state: return a clone of it"
        )

    def _kinds(
        self,
        seen: _Seen,
        results: list[Result],
        output_places: list[Result],
        flags: list[bool],
    ) -> list[OutputKind]:
        made = [r.made for r in results if r.made is not None]
        if len(set(made)) != len(made):
            raise LoopError(
                "compile=True: the step returns one tensor as two leaves of its state: clone one "
                "of them, or leave compile out"
            )
        kinds: list[OutputKind] = []
        for place in output_places:
            if place.made is not None:
                live = _wants(seen.outputs[place.made])
            else:
                live = flags[place.given or 0]
            leaf = results.index(place) if live and place in results else None
            kinds.append(OutputKind(live, leaf))
            if live and place.given is not None and leaf is None:
                raise LoopError(
                    "compile=True: an output is a tensor of the state before the step: return a "
                    "clone of it as output"
                )
        return kinds

    # ---- the joint graph

    def _trace(
        self,
        seen: _Seen,
        results: list[Result],
        output_places: list[Result],
        nesting: Any,
        flags: list[bool],
        kinds: list[OutputKind],
    ) -> TracedStep:
        # The gradient of a leaf that the step passes on, or gives as output, is a total, too.
        shared = {r.given for r in results if r.given is not None}
        shared |= {kind.leaf for kind in kinds if kind.leaf is not None}
        found: list[TracedStep] = []

        def take(module: fx.GraphModule, given: Sequence[Any]) -> None:
            constants = [Argument(tensor=t) for t in torch_hooks.own_tensors(module)]
            arguments = (*constants, *map(self._argument, given))
            handed = [
                place
                for place, argument in enumerate(arguments)
                if (argument.tensor is not None and argument.tensor.requires_grad)
                or (argument.leaf in shared and flags[argument.leaf or 0])
            ]
            lowered: list[tuple[Lowered, dict[str, int]]] = []

            def halves(traced: Traced) -> tuple[fx.GraphModule, fx.GraphModule]:
                joint, num_fwd_outputs = traced.module, traced.num_fwd_outputs
                tangents = _tangents(joint)
                live = {k for k, t in enumerate(seen.outputs) if _wants(t)}
                hands = range(len(seen.outputs), len(seen.outputs) + len(handed))
                if num_fwd_outputs != hands.stop or set(tangents.values()) != live | set(hands):
                    raise UnsupportedGraphError(
                        "the step of a loop changes a tensor in place, or returns views of one "
                        "tensor: return new tensors (clones), or leave compile=True out"
                    )
                _without_hands(joint, num_fwd_outputs, handed)
                profiles = OpProfiles()
                grouped = read(traced, profiles, observers(), self.executor)
                weighed = weigh(grouped, self.cost, profiles, observers(), self.executor)
                lowered.append((weighed, tangents))
                return as_it_is(weighed, self.executor)

            partition = partitioner(module, halves, is_part=True)
            torch_hooks.specialize_sizes(module, given, numbers=False)
            make = self.executor.backend(partition, torch_hooks.boxed_executor, lambda _again: None)
            make(_with_hands(module, [place - len(constants) for place in handed]), given)
            for weighed, tangents in lowered:
                found[:] = [
                    TracedStep(
                        step=self.recurrence.step,
                        lowered=weighed,
                        executor=self.executor,
                        cost=self.cost,
                        first=tuple(self.first),
                        flags=tuple(flags),
                        arguments=arguments,
                        inputs_wanted=tuple(k for k, x in enumerate(self.inputs) if _wants(x)),
                        made=len(seen.outputs),
                        results=tuple(results),
                        output_places=tuple(output_places),
                        output_nesting=nesting,
                        kinds=tuple(kinds),
                        handed=tuple(handed),
                        tangents=tangents,
                        reached=_reached(self.recurrence.step, arguments),
                        holds_for=torch_hooks.trace_holds_for(),
                    )
                ]

        with torch.enable_grad(), _readable():
            torch_hooks.trace_whole(self.recurrence.step, self._arguments(), {}, take)
        if not found:
            raise LoopError("compile=True: nothing that the step computes requires gradients")
        return found[0]

    def _argument(self, value: Any) -> Argument:
        if not isinstance(value, torch.Tensor) or value is self.number:
            return Argument(number=True)
        for index, leaf in enumerate(self.first):
            if leaf is value:
                return Argument(leaf=index)
        for index, given in enumerate(self.inputs):
            if given is value:
                return Argument(input=index)
        return Argument(tensor=value)


def as_it_is(lowered: Lowered, executor: Executor) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The two graphs of a step with nothing recomputed."""
    schedule = baseline(lowered.lowering.problem)
    options = make_options({"budget": 1.0})
    plan = follow(lowered.lowering, lowered.baseline, options, schedule)
    graphs = compile_plan(Planned(plan), observers(), executor).graphs
    return graphs.forward, graphs.backward


def _reached(step: Callable[..., Any], arguments: Sequence[Argument]) -> frozenset[int]:
    own = {id(a.tensor) for a in arguments if a.tensor is not None}
    return frozenset(own & {id(t) for t in reachable(step).tensors})


def _wants(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def _tangents(joint: fx.GraphModule) -> dict[str, int]:
    """By the names of a joint graph's tangents: which traced output each is the gradient of."""
    found: dict[str, int] = {}
    for node in joint.graph.find_nodes(op="placeholder"):
        if torch_hooks.is_tangent(node):
            output = torch_hooks.output_of_tangent(node)
            found[node.name] = -1 if output is None else output
    return found


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _with_hands(module: fx.GraphModule, places: Sequence[int]) -> fx.GraphModule:
    """Dynamo's graph with a hand for each of the inputs at these places, made last."""
    graph = copy.deepcopy(module.graph)
    given, output = graph.find_nodes(op="placeholder"), graph.output_node()
    with graph.inserting_before(output):
        hands = [graph.call_function(_hand, (given[place],)) for place in places]
    for hand, place in zip(hands, places, strict=True):
        hand.meta["example_value"] = given[place].meta.get("example_value")
    results: Any = output.args[0]
    output.args = ((*results, *hands),)
    return fx.GraphModule(module, graph)


def _without_hands(joint: fx.GraphModule, num_fwd_outputs: int, places: Sequence[int]) -> None:
    """Let forward return the handed inputs themselves, which takes no memory, for the hands."""
    given = [n for n in joint.graph.find_nodes(op="placeholder") if torch_hooks.is_primal(n)]
    output = joint.graph.output_node()
    results = list(returned(joint.graph))
    for k, place in enumerate(places):
        results[num_fwd_outputs - len(places) + k] = given[place]
    output.args = (tuple(results),)
    joint.graph.eliminate_dead_code()
    joint.recompile()


@contextlib.contextmanager
def _readable() -> Generator[None, None, None]:
    """Around tracing: what torch says of a step that can't be traced, in our words."""
    try:
        yield
    except torch_hooks.PassesThroughDynamo as error:
        raise error.remove_dynamo_frames() from None
    except Exception as error:
        cause = torch_hooks.shown_cause(error)
        reason = torch_hooks.unwrap_graph_break(error)
        if reason is not None:
            raise GraphBreakError(
                "the step of the loop does not trace into one graph, as compile=True needs it: "
                f"leave compile out, or remove what breaks the graph:\n{reason}"
            ) from cause
        inside = torch_hooks.torch_failure(error)
        if inside is not None:
            raise UnsupportedGraphError(
                "torch itself fails when it traces the step of the loop: leave compile=True out, "
                f"or rewrite the line:\n{inside}"
            ) from cause
        raise
