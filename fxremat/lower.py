"""Joint graph -> `RematProblem`, with the map back.

Every storage becomes a value and every operation an op, in the order they run untouched. How an
op runs again is its rerun: as it ran first, or

- a random op from the generator's state, a lazy value that its first run keeps where there is a
  rerun; the replay sets the current state aside meanwhile;
- BatchNorm without the running statistics, which its first run alone reads and makes anew.

Three kinds of entry have no node of their own:

- *tangents*: between forward and backward stands one op that makes the tangents. It reads every
  forward output and forward's last random draws, so that no schedule can start backward before
  forward is done; everything that a schedule puts before it is the forward graph, everything
  after it the backward graph.
- *accumulation*: what the autograd engine copies after backward, where it does (`accumulate`).
- *tokens*: values of 0 bytes that keep effects, random draws and reads of updated buffers in order.
  First runs alone read and make them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from fxremat.accumulate import accumulated_bytes
from fxremat.annotate import Annotation
from fxremat.capture import JointGraph, Storage, is_effect
from fxremat.recomputability import (
    Form,
    Recomputability,
    generator_device,
    is_random,
    mutated_placeholders,
)
from fxremat_solvers import Op, RematProblem, Rerun, Value

aten = torch.ops.aten

# From here on the arguments of BatchNorm, and its outputs, are what a rerun leaves alone.
_RUNNING_STATISTICS = 3
_NEW_STATISTICS = 3


@dataclass(frozen=True)
class Lowering:
    """A problem and how its ops and values relate to the graph (the inverse data of `lower`).

    `node_of[i]` is the operation that op i runs, or None for ops without a node. `run_of` is its
    inverse, `value_of` maps storages to values.
    """

    problem: RematProblem
    node_of: tuple[fx.Node | None, ...]
    run_of: Mapping[fx.Node, int]
    value_of: Mapping[Storage, int]
    tangents_op: int


def lower(
    joint: JointGraph,
    annotations: Mapping[fx.Node, Annotation],
    forms: Mapping[fx.Node, Recomputability],
) -> Lowering:
    """Lower an annotated joint graph: costs in seconds, values in bytes on the step's device."""
    return _Lowerer(joint, annotations, forms).run()


class _Lowerer:
    """Collects ops and values in one walk over the operations."""

    def __init__(
        self,
        joint: JointGraph,
        annotations: Mapping[fx.Node, Annotation],
        forms: Mapping[fx.Node, Recomputability],
    ) -> None:
        self.joint = joint
        self.annotations = annotations
        self.forms = forms
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.node_of: list[fx.Node | None] = []
        self.run_of: dict[fx.Node, int] = {}
        self.value_of = {
            storage: self._value(storage.maker.name, self._counted_bytes(storage))
            for storage in joint.storages
        }

    def run(self) -> Lowering:
        joint = self.joint
        mutated = mutated_placeholders(joint)
        effect_token: int | None = None
        random_token: dict[torch.device | None, int] = {}
        read_tokens: dict[fx.Node, list[int]] = {placeholder: [] for placeholder in mutated}
        tangents_op = -1
        for position, node in enumerate(joint.operations):
            if position == joint.first_backward:
                tangents_op = self._add_tangents(effect_token, random_token.values())
            inputs = [self.value_of[s] for s in joint.storages_read(node)]
            outputs = [self.value_of[s] for s in joint.made_by.get(node, ())]
            annotation = self.annotations[node]
            again = self._rerun(node, inputs, outputs)
            if is_effect(node):
                effect_token = self._chain(node, inputs, outputs, effect_token)
                if node.target is aten.copy_.default and isinstance(node.args[0], fx.Node):
                    inputs += read_tokens.get(joint.storage_of[node.args[0]].maker, [])
            else:
                for storage in joint.storages_read(node):
                    if storage.maker in read_tokens:
                        outputs.append(self._token(node))
                        read_tokens[storage.maker].append(outputs[-1])
            if again is not None and self.forms[node].form is Form.REPLAY_RNG:
                outputs.append(again.inputs[-1])
            if is_random(node):
                # The stream is drawn from in the order of the untouched graph.
                device = generator_device(joint, node)
                random_token[device] = self._chain(node, inputs, outputs, random_token.get(device))
            self.run_of[node] = len(self.ops)
            self._add(
                node.name,
                inputs,
                outputs,
                node=node,
                cost=annotation.seconds,
                workspace_bytes=annotation.workspace_bytes,
                again=again,
            )
        if joint.first_backward == len(joint.operations):
            tangents_op = self._add_tangents(effect_token, random_token.values())
        done = self._add_accumulation()
        return Lowering(
            problem=RematProblem(
                ops=tuple(self.ops),
                values=tuple(self.values),
                inputs=tuple(self.value_of[s] for s in joint.storages if s.resident),
                outputs=(*self._outputs(), *done),
                first_backward_op=tangents_op,
            ),
            node_of=tuple(self.node_of),
            run_of=self.run_of,
            value_of=self.value_of,
            tangents_op=tangents_op,
        )

    def _rerun(self, node: fx.Node, reads: list[int], makes: list[int]) -> Rerun | None:
        """How a node runs again, if it does. A random one reads its state last."""
        annotation, form = self.annotations[node], self.forms[node].form
        cost, workspace_bytes = annotation.seconds, annotation.workspace_bytes
        if form is Form.NEVER:
            return None
        if form is Form.REPLAY_RNG:
            device = generator_device(self.joint, node)
            nbytes = self.joint.memory.generator_state(device)
            state = self._value(f"{node.name}_rng_state", nbytes, lazy=True)
            # The current state is set aside while the first run's is in place.
            workspace_bytes += nbytes
            return Rerun((*reads, state), tuple(makes), cost, workspace_bytes)
        if form is Form.BATCH_NORM:
            made = self.joint.made_by[node]
            normalised = node.args[:_RUNNING_STATISTICS]
            arguments = [self.joint.storage_of[a] for a in normalised if isinstance(a, fx.Node)]
            reads = list(dict.fromkeys(self.value_of[storage] for storage in arguments))
            makes = [self.value_of[s] for s in made if s.position < _NEW_STATISTICS]
        return Rerun(tuple(reads), tuple(makes), cost, workspace_bytes)

    def _add_tangents(self, effect_token: int | None, random_tokens: Iterable[int]) -> int:
        """The op between forward and backward."""
        joint = self.joint
        inputs = [self.value_of[joint.storage_of[n]] for n in joint.forward_outputs]
        inputs += [effect_token] if effect_token is not None else []
        inputs += random_tokens
        outputs = [self.value_of[joint.storage_of[n]] for n in joint.tangents]
        self._add("tangents", list(dict.fromkeys(inputs)), list(dict.fromkeys(outputs)))
        return len(self.ops) - 1

    def _add_accumulation(self) -> list[int]:
        """The op after backward, where there is one; what it makes is an output of the step."""
        nbytes = accumulated_bytes(self.joint)
        if not nbytes:
            return []
        gradients = dict.fromkeys(self.joint.storage_of[n] for n in self.joint.gradients)
        done = self._value("accumulated", 0)
        inputs = [self.value_of[storage] for storage in gradients]
        self._add("accumulate_gradients", inputs, [done], workspace_bytes=nbytes)
        return [done]

    def _outputs(self) -> tuple[int, ...]:
        joint = self.joint
        # Larger tangents are handed over and freed after their last use.
        kept = (*joint.forward_outputs, *joint.gradients, *joint.scalar_tangents)
        storages = dict.fromkeys(joint.storage_of[node] for node in kept)
        return tuple(self.value_of[s] for s in storages if not s.resident)

    def _chain(
        self, node: fx.Node, inputs: list[int], outputs: list[int], previous: int | None
    ) -> int:
        if previous is not None:
            inputs.append(previous)
        outputs.append(self._token(node))
        return outputs[-1]

    def _add(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        node: fx.Node | None = None,
        cost: float = 0.0,
        workspace_bytes: int = 0,
        again: Rerun | None = None,
    ) -> None:
        reruns = () if again is None else (again,)
        self.ops.append(Op(name, tuple(inputs), tuple(outputs), cost, workspace_bytes, reruns))
        self.node_of.append(node)

    def _value(self, name: str, nbytes: int, *, lazy: bool = False) -> int:
        self.values.append(Value(name, nbytes, lazy))
        return len(self.values) - 1

    def _token(self, node: fx.Node) -> int:
        return self._value(f"{node.name}_token", 0)

    def _counted_bytes(self, storage: Storage) -> int:
        if storage.resident or not self.joint.memory.counts(storage.device):
            return 0
        annotation = self.annotations.get(storage.maker)
        if annotation is None:  # a tangent
            return storage.nbytes
        return annotation.output_bytes[storage.position] or 0
