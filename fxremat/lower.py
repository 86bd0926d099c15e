"""Joint graph -> `RematProblem`, with the map back.

Every storage becomes a value and every operation an op, in the order they run untouched. Four
kinds of entry have no node of their own:

- *tangents*: between forward and backward stands one op that makes the tangents. It reads every
  forward output and forward's last random draws, so that no schedule can start backward before
  forward is done; everything that a schedule puts before it is the forward graph, everything
  after it the backward graph.
- *first run*: an op whose first run makes more than its recomputation (the generator state of a
  random op, BatchNorm's new running statistics) is preceded by an op, run once, that makes that.
- *accumulation*: what the autograd engine copies after backward, where it does (`accumulate`).
- *tokens*: values of 0 bytes that keep effects, random draws and reads of updated buffers in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
from fxremat_solvers import Op, RematProblem, Schedule, Value, plain_op

aten = torch.ops.aten


@dataclass(frozen=True)
class Lowering:
    """A problem and how its ops and values relate to the graph (the inverse data of `lower`).

    `node_of[i]` is the operation that op i runs, or None for ops without a node. `run_of` is its
    inverse. `first_run_of` maps an operation to the op that precedes its first run. `value_of`
    maps storages to values and `state_of` a random operation to the value of its generator state.
    """

    problem: RematProblem
    node_of: tuple[fx.Node | None, ...]
    run_of: Mapping[fx.Node, int]
    first_run_of: Mapping[fx.Node, int]
    value_of: Mapping[Storage, int]
    state_of: Mapping[fx.Node, int]
    tangents_op: int

    def settled(self, schedule: Schedule | Sequence[int]) -> RematProblem:
        """The problem without what this schedule has no use for: a generator's state is kept, and
        set aside during a replay, only where its op is recomputed."""
        steps = tuple(schedule)
        runs = Counter(steps)
        unused = {n: value for n, value in self.state_of.items() if runs[self.run_of[n]] == 1}
        values, ops = list(self.problem.values), list(self.problem.ops)
        for node, value in unused.items():
            op = self.run_of[node]
            nbytes = values[value].nbytes
            values[value] = replace(values[value], nbytes=0)
            ops[op] = replace(ops[op], workspace_bytes=ops[op].workspace_bytes - nbytes)
        return replace(self.problem, ops=tuple(ops), values=tuple(values))


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
        self.first_run_of: dict[fx.Node, int] = {}
        self.state_of: dict[fx.Node, int] = {}
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
            form = self.forms[node].form
            if is_effect(node):
                effect_token = self._chain(node, inputs, outputs, effect_token)
                if node.target is aten.copy_.default and isinstance(node.args[0], fx.Node):
                    inputs += read_tokens.get(joint.storage_of[node.args[0]].maker, [])
            else:
                for storage in joint.storages_read(node):
                    if storage.maker in read_tokens:
                        outputs.append(self._token(node))
                        read_tokens[storage.maker].append(outputs[-1])
            device: torch.device | None = None
            if is_random(node):
                # The stream is drawn from in the order of the untouched graph.
                device = generator_device(joint, node)
                before = self._token(node)
                state: list[int] = []
                if form is Form.REPLAY_RNG:
                    state = [self._value(f"{node.name}_rng_state", self._state_bytes(device))]
                    self.state_of[node] = state[0]
                previous = [random_token[device]] if device in random_token else []
                self._add(f"{node.name}_first_run", previous, [before, *state])
                self.first_run_of[node] = len(self.ops) - 1
                random_token[device] = self._token(node)
                inputs += [before, *state]
                outputs.append(random_token[device])
            elif form is Form.BATCH_NORM:
                statistics = [self.value_of[s] for s in joint.made_by[node] if s.position >= 3]
                ready = self._token(node)
                self._add(f"{node.name}_first_run", [], [ready, *statistics])
                self.first_run_of[node] = len(self.ops) - 1
                inputs.append(ready)
                outputs = [value for value in outputs if value not in statistics]
            annotation = self.annotations[node]
            replay_bytes = self._state_bytes(device) if node in self.state_of else 0
            self.run_of[node] = len(self.ops)
            self._add(
                node.name,
                inputs,
                outputs,
                node=node,
                cost=annotation.seconds,
                workspace_bytes=annotation.workspace_bytes + replay_bytes,
                recomputable=form is not Form.NEVER,
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
            first_run_of=self.first_run_of,
            value_of=self.value_of,
            state_of=self.state_of,
            tangents_op=tangents_op,
        )

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
        recomputable: bool = False,
    ) -> None:
        self.ops.append(
            plain_op(name, tuple(inputs), tuple(outputs), cost, workspace_bytes, recomputable)
        )
        self.node_of.append(node)

    def _value(self, name: str, nbytes: int) -> int:
        self.values.append(Value(name, nbytes))
        return len(self.values) - 1

    def _token(self, node: fx.Node) -> int:
        return self._value(f"{node.name}_token", 0)

    def _counted_bytes(self, storage: Storage) -> int:
        if storage.resident or storage.device.type != self.joint.device.type:
            return 0
        annotation = self.annotations.get(storage.maker)
        if annotation is None:  # a tangent
            return storage.nbytes
        return annotation.output_bytes[storage.position] or 0

    def _state_bytes(self, device: torch.device | None) -> int:
        """CPU generator states are CPU tensors; a CUDA generator's state is one too."""
        if self.joint.device.type != "cpu" or device is None or device.type != "cpu":
            return 0
        return torch.get_rng_state().numel()
