"""A step that was traced, under one plan: run, taped and reversed by its compiled graphs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.errors import LoopError, OptionError
from fxremat.execute.executor import Boxed
from fxremat.loops.outputs import Outputs
from fxremat.loops.recording import Recorded
from fxremat.loops.recurrence import Leaf, Recurrence
from fxremat.loops.tape import Gradient
from fxremat.loops.traced import Result, TracedStep
from fxremat.nodes import returned, traced_value
from fxremat.pipeline.observe import observers
from fxremat.pipeline.passes import compile_plan
from fxremat.pipeline.states import Planned
from fxremat.plan.options import make_options
from fxremat.plan.plan import Plan, follow
from fxremat_solvers import Schedule

Record = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""The results, outputs, states and captured tensors of a `Recorded`."""


@dataclass(frozen=True)
class _Tangent:
    """An argument of the backward graph: which of the gradients given to a tape go into it, and how
    it lies in memory. The first one is the first summand."""

    places: tuple[int, ...]
    like: torch.Tensor


@dataclass(frozen=True)
class CompiledStep:
    """The graphs of a step under one plan.

    `forward` returns what the step makes, `taping` residuals too, from `first_residual` on.
    `backward` takes `from_tape` (places among the residuals, or else a tangent) and returns a
    gradient for each argument, of which `gradients` are those that are asked for.
    """

    traced: TracedStep
    forward: Boxed
    taping: Boxed
    backward: Boxed
    first_residual: int
    from_tape: tuple[int | _Tangent, ...]
    gradients: tuple[int | None, ...]
    record: Record
    extra_seconds: float

    def __str__(self) -> str:
        operations = len(self.traced.lowered.lowering.graph.operations)
        return (
            f"runs by {self.traced.executor.name}: {operations} operations, recomputes "
            f"{self.extra_seconds:.3g} s of them in its backward"
        )

    def arguments(self, number: int, leaves: Sequence[Leaf], inputs: Sequence[Any]) -> list[Any]:
        """What the graphs are given. Raises `LoopError` where a step is not as the traced one."""
        holds = self.traced.holds_for
        if holds is not None and not holds(number):
            raise LoopError(
                f"step {number} takes another way than the one that was traced, by its number (a "
                "branch, a tensor that it indexes): give what differs from step to step as xs=, or "
                "leave compile=True out"
            )
        found: list[Any] = []
        for argument in self.traced.arguments:
            if argument.leaf is not None:
                found.append(leaves[argument.leaf])
            elif argument.input is not None:
                found.append(inputs[argument.input])
            elif argument.number:
                found.append(
                    torch.tensor(number) if self.traced.executor.name != "eager" else number
                )
            else:
                found.append(argument.tensor)
        return found

    def check(
        self, recurrence: Recurrence, first: Sequence[Leaf], reached: Sequence[torch.Tensor]
    ) -> None:
        """Raise `OptionError` where a loop is of another step, or other shapes.

        `reached` are the tensors that the step can reach now.
        """
        traced = self.traced
        if recurrence.step != traced.step:
            raise OptionError(
                "the plan holds a compiled step, and the loop has another one: a function that is "
                "made anew at each call is another step; plan again, or keep the step"
            )
        if not traced.reached <= {id(t) for t in reached}:
            raise OptionError(
                "the plan holds a compiled step, whose parameters, or other tensors, are no longer "
                "those that it was compiled with: plan again"
            )
        for index, like in enumerate(traced.first):
            leaf = first[index]
            if isinstance(like, torch.Tensor) and _lies(leaf) != _lies(like):
                raise OptionError(
                    f"leaf {index} of the state is not as the one that the step was compiled for "
                    f"({list(like.shape)}, {like.dtype}): plan again"
                )
            if not isinstance(like, torch.Tensor) and leaf != like:
                raise OptionError(
                    f"leaf {index} of the state is {leaf!r}, and the step was compiled for "
                    f"{like!r}: plan again, or make it a tensor"
                )


class CompiledTape:
    """What a step kept for its reversal."""

    __slots__ = ("_compiled", "_residuals")

    def __init__(self, compiled: CompiledStep, residuals: list[Any]) -> None:
        self._compiled = compiled
        self._residuals = residuals

    def pull(
        self,
        gradients: list[Gradient],
        seed: torch.Tensor,  # noqa: ARG002
    ) -> list[Gradient]:
        """The gradients of the leaves. Empties the list and the tape: both are freed early."""
        compiled, residuals = self._compiled, self._residuals
        arguments: list[Any] = []
        for each in compiled.from_tape:
            if isinstance(each, int):
                arguments.append(residuals[each])
            else:
                arguments.append(_summed(each, gradients))
        residuals.clear()
        gradients.clear()
        found = compiled.backward(arguments)
        return [None if place is None else found[place] for place in compiled.gradients]


def _summed(tangent: _Tangent, gradients: Sequence[Gradient]) -> torch.Tensor:
    total: Gradient = None
    for place in tangent.places:
        more = gradients[place]
        if more is not None:
            total = more if total is None else total + more
    like = tangent.like
    if total is None:
        # Of all numbers this one changes none that is added to it, in no bit.
        return torch.full(like.shape, -0.0, dtype=like.dtype, device=like.device)
    if total.stride() != like.stride():
        return torch.empty_strided(
            like.shape, like.stride(), dtype=like.dtype, device=like.device
        ).copy_(total)
    return total


class CompiledRecorder:
    """Runs steps by their compiled graphs; what `Recorder` is to steps that run as they are."""

    settled = True
    careful = True

    def __init__(
        self,
        compiled: CompiledStep,
        recurrence: Recurrence,
        outputs: Outputs | None,
        leaves: Sequence[Leaf],
    ) -> None:
        self._compiled = compiled
        self._recurrence = recurrence
        self._outputs = outputs
        self._first_flags = tuple(isinstance(t, torch.Tensor) and t.requires_grad for t in leaves)
        if outputs is not None:
            outputs.settle(compiled.traced.kinds, compiled.traced.output_nesting)

    def flags(self, number: int) -> tuple[bool, ...]:
        """Which leaves of a state require gradients."""
        return self._compiled.traced.flags if number else self._first_flags

    def check_unchanged(self) -> None:
        """A traced step changes nothing in place."""

    def advance(self, number: int, current: list[Leaf], *, sweeping: bool) -> list[Leaf]:
        """The next state. Nothing is kept."""
        return self._run(self._compiled.forward, number, current, sweeping)[0]

    def tape(
        self, number: int, current: list[Leaf], *, sweeping: bool
    ) -> tuple[Recorded, list[Leaf]]:
        """The step's record and the next state. Empties `current`."""
        compiled = self._compiled
        after, made = self._run(compiled.taping, number, current, sweeping)
        tape = CompiledTape(compiled, list(made[compiled.first_residual :]))
        return Recorded(tape, *compiled.record), after

    def _run(
        self, graph: Boxed, number: int, current: list[Leaf], sweeping: bool
    ) -> tuple[list[Leaf], Sequence[Any]]:
        compiled = self._compiled
        traced = compiled.traced
        arguments = compiled.arguments(number, current, self._recurrence.inputs(number))
        kept = {k: current[k] for k in traced.passed_on}
        current.clear()
        made = graph(arguments)

        def found(place: Result) -> Any:
            return made[place.made] if place.made is not None else kept[place.given or 0]

        if sweeping and self._outputs is not None:
            self._outputs.put(number, [found(place) for place in traced.output_places])
        return [found(place) for place in traced.results], made


def compiled_step(traced: TracedStep, schedule: Schedule) -> CompiledStep:
    """The graphs of a step by a schedule."""
    plan = plan_by(traced, schedule)
    graphs = compile_plan(Planned(plan), observers(), traced.executor).graphs
    number = graphs.num_fwd_outputs
    record = _record(traced, returned(plan.graph.module.graph)[number:])
    residual_of = {
        node.name: place
        for place, node in enumerate(returned(graphs.forward.graph)[number:])
        if isinstance(node, fx.Node)
    }
    places_of = _places(traced, record)

    def source(node: fx.Node) -> int | _Tangent:
        if not torch_hooks.is_tangent(node):
            return residual_of[node.name]
        return _Tangent(places_of[traced.tangents[node.name]], traced_value(node))

    from_tape = tuple(map(source, graphs.backward.graph.find_nodes(op="placeholder")))
    forward = _without_residuals(graphs.forward, traced.made)
    compile_graph = traced.executor.compile
    return CompiledStep(
        traced=traced,
        forward=compile_graph(forward),
        taping=compile_graph(graphs.forward),
        backward=compile_graph(graphs.backward),
        first_residual=number,
        from_tape=from_tape,
        gradients=_asked(traced, record),
        record=record,
        extra_seconds=plan.extra_seconds,
    )


def plan_by(traced: TracedStep, schedule: Schedule) -> Plan:
    """The plan of a step that is a given schedule."""
    options = make_options({"budget": 1.0, "cost": traced.cost})
    return follow(traced.lowered.lowering, traced.lowered.baseline, options, schedule)


def _without_residuals(forward: fx.GraphModule, made: int) -> fx.GraphModule:
    """The forward graph with what the step makes as its only results."""
    graph = copy.deepcopy(forward.graph)
    output = graph.output_node()
    output.args = (tuple(returned(graph)[:made]),)
    graph.eliminate_dead_code()
    return torch_hooks.lazy_graph_module(forward, graph)


def _record(traced: TracedStep, gradients: Sequence[Any]) -> Record:
    """Whose gradients go into a tape, and come out of it."""
    live = set(traced.tangents.values())
    results = tuple(
        j
        for j, result in enumerate(traced.results)
        if (result.made in live if result.given is None else traced.flags[result.given])
    )
    outputs = tuple(k for k in reversed(range(len(traced.kinds))) if traced.kinds[k].own)
    states = tuple(
        argument.leaf
        for argument, gradient in zip(traced.arguments, gradients, strict=True)
        if argument.leaf is not None and gradient is not None
    )
    totals = [place for place in traced.handed if traced.arguments[place].tensor is not None]
    # One that comes out as it went in isn't used where gradients are recorded.
    captured = tuple(
        c
        for c, place in enumerate(totals)
        if not (isinstance(gradients[place], fx.Node) and torch_hooks.is_tangent(gradients[place]))
    )
    return results, outputs, states, captured


def _places(traced: TracedStep, record: Record) -> dict[int, tuple[int, ...]]:
    """By the traced outputs: the places, among the gradients that a tape is given, of theirs."""
    results, outputs, states, captured = record
    found: dict[int, tuple[int, ...]] = dict.fromkeys(range(traced.made + len(traced.handed)), ())
    hand_of = {place: traced.made + k for k, place in enumerate(traced.handed)}
    of_leaf = {a.leaf: hand_of.get(k) for k, a in enumerate(traced.arguments)}
    totals = [place for place in traced.handed if traced.arguments[place].tensor is not None]
    goes_to = [
        *(
            result.made if result.given is None else of_leaf[result.given]
            for result in (traced.results[j] for j in results)
        ),
        *(traced.output_places[k].made for k in outputs),
        *(of_leaf[j] for j in states),
        *(hand_of[totals[c]] for c in captured),
    ]
    for place, output in enumerate(goes_to):
        if output is not None:
            found[output] = (*found[output], place)
    return found


def _asked(traced: TracedStep, record: Record) -> tuple[int | None, ...]:
    """The arguments whose gradients a tape gives: state, inputs, and what is captured."""
    _, _, states, captured = record
    of_leaf = {a.leaf: k for k, a in enumerate(traced.arguments) if a.leaf is not None}
    of_input = {a.input: k for k, a in enumerate(traced.arguments) if a.input is not None}
    totals = [place for place in traced.handed if traced.arguments[place].tensor is not None]
    return (
        *(of_leaf[j] for j in states),
        *(of_input.get(index) for index in traced.inputs_wanted),
        *(totals[c] for c in captured),
    )


def _lies(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device
