"""Joint graph -> `RematProblem`, and a schedule of that problem -> what runs in the graph.

Every storage becomes a value and every operation an op, in the order they run with nothing
recomputed. How an op runs again is its rerun: as it ran first, or

- a random op from the generator's state, a lazy value that its first run keeps where there is a
  rerun; the replay sets the current state aside meanwhile;
- BatchNorm without the running statistics, which its first run alone reads and makes anew.

An operation that backward must make again is two ops. The first one runs in forward, once. The
second reads what the tangents make, stands before the first op that needs it, and makes values of
its own, which all of backward reads. What reads the first one's values runs once, and before the
tangents, so that no schedule holds them for backward.

Four kinds of entry have no operation of their own:

- *tangents*: between forward and backward stands one op that makes the tangents. It reads every
  forward output and forward's last random draws, so that no schedule can start backward before
  forward is done; everything that a schedule puts before it is the forward graph, everything
  after it the backward graph.
- *call*: where the call itself makes inputs (a tensor of a NumPy number), the first op makes them,
  and every op that reads only inputs reads its token, so that none runs before it.
- *accumulation*: what the autograd engine copies after backward, where it does (`accumulate`).
- *tokens*: values of 0 bytes that keep effects, random draws and reads of updated buffers in order.
  First runs alone read and make them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import fx

from fxremat.classify import generator_device, is_random, mutated_placeholders
from fxremat.graph import Form, JointGraph, Operation, Storage
from fxremat.kernel import Kernel
from fxremat.lower.accumulate import accumulated_bytes
from fxremat.nodes import is_effect, traced_value
from fxremat_solvers import Op, RematProblem, Rerun, Schedule, Simulation, Value, simulate

# From here on the arguments of BatchNorm, and its outputs, are what a rerun leaves alone.
_RUNNING_STATISTICS = 3
_NEW_STATISTICS = 3


@dataclass(frozen=True)
class Run:
    """One run of an operation.

    `makes` are the storages that it makes anew and `workspace_bytes` what it takes beyond them.
    `first` says that it is the operation's first run, `repeated` that there are others. `in_place`
    are storages that it makes, each with the one that it writes it over.
    """

    operation: Operation
    makes: tuple[Storage, ...]
    workspace_bytes: int
    first: bool
    repeated: bool
    in_place: tuple[tuple[Storage, Storage], ...] = ()


@dataclass(frozen=True)
class Program:
    """A schedule in terms of the graph: what runs in forward and in backward, in order."""

    forward: tuple[Run, ...]
    backward: tuple[Run, ...]


@dataclass(frozen=True)
class Lowering:
    """A graph as a problem (`apply`), and the way back from its solution (`invert`).

    The inverse data: `operation_of[i]` is what op i of the problem runs, None for the ops that
    stand for no operation; `storage_of[i]` the storage that value i stands for, None for states
    and tokens. `tangents_op` is the op between forward and backward. `in_place` has, by op, values
    that it makes, each with one of as many bytes that it can write it over where that one dies.
    `again` are the ops that make again what backward must not find made.
    """

    graph: JointGraph
    problem: RematProblem
    operation_of: tuple[Operation | None, ...]
    storage_of: tuple[Storage | None, ...]
    tangents_op: int
    in_place: Mapping[int, tuple[tuple[int, int], ...]] = field(
        default_factory=dict[int, "tuple[tuple[int, int], ...]"]
    )
    again: frozenset[int] = frozenset()

    @staticmethod
    def apply(graph: JointGraph) -> Lowering:
        """Lower a classified graph: costs in seconds, values in bytes on the step's device."""
        return _Lowerer(graph, _made_again(graph)).run()

    @cached_property
    def plain(self) -> Lowering:
        """The same graph where nothing need be recomputed: what plans are compared with."""
        return _Lowerer(self.graph, frozenset()).run() if self.again else self

    def reruns_in(self, schedule: Schedule) -> Counter[int]:
        """How often a schedule recomputes each op, those that must be included."""
        count = Counter(schedule)
        return +Counter({op: n if op in self.again else n - 1 for op, n in count.items()})

    @property
    def outputs(self) -> tuple[int, ...]:
        """The values that forward returns, one for each of the graph's `forward_outputs`."""
        value_of = {storage: v for v, storage in enumerate(self.storage_of) if storage is not None}
        return tuple(value_of[self.graph.storage_of[node]] for node in self.graph.forward_outputs)

    def replay(self, schedule: Schedule) -> Simulation:
        """What a schedule needs and costs, with what is written in place counted once.

        Raises `ScheduleError` where it can't be executed.
        """
        simulation = simulate(self.problem, schedule)
        if not self.in_place:
            return simulation
        running = list(simulation.running_bytes)
        for step, pairs in enumerate(self._written_in_place(schedule, simulation)):
            running[step] -= sum(self.problem.values[over].nbytes for _, over in pairs)
        peak = max(running)
        return replace(
            simulation,
            peak_bytes=peak,
            peak_step=running.index(peak),
            running_bytes=tuple(running),
        )

    def _written_in_place(
        self, schedule: Schedule, simulation: Simulation
    ) -> list[tuple[tuple[int, int], ...]]:
        """What each step writes over what it alone still needs."""
        return [
            tuple(
                (made, over)
                for made, over in self.in_place.get(op, ())
                if over in simulation.dies[step] and made in simulation.makes[step]
            )
            for step, op in enumerate(schedule)
        ]

    def invert(self, schedule: Schedule) -> Program:
        """What a schedule runs. Raises `ScheduleError` where it can't be executed."""
        simulation = simulate(self.problem, schedule)
        reruns = self.reruns_in(schedule)
        repeated = {self.operation_of[op] for op in reruns}
        written_over = self._written_in_place(schedule, simulation)
        runs: list[Run | None] = []
        for op, run, pairs in zip(schedule, simulation.runs, written_over, strict=True):
            operation = self.operation_of[op]
            if operation is None:
                runs.append(None)
                continue
            storages = (self.storage_of[value] for value in run.outputs)
            makes = tuple(storage for storage in storages if storage is not None)
            first = run is self.problem.ops[op] and op not in self.again
            in_place = tuple((self._storage(made), self._storage(over)) for made, over in pairs)
            is_repeated = operation in repeated
            runs.append(Run(operation, makes, run.workspace_bytes, first, is_repeated, in_place))
        boundary = schedule.ops.index(self.tangents_op)
        return Program(
            forward=tuple(run for run in runs[:boundary] if run is not None),
            backward=tuple(run for run in runs[boundary:] if run is not None),
        )

    def _storage(self, value: int) -> Storage:
        storage = self.storage_of[value]
        assert storage is not None
        return storage


class _Lowerer:
    """Collects ops and values in one walk over the operations."""

    def __init__(self, graph: JointGraph, made_again: frozenset[Operation]) -> None:
        self.graph = graph
        self.made_again = made_again
        # How what isn't made again yet will be, and what backward has in the place of a value.
        self.waiting: dict[Storage, tuple[Operation, Rerun]] = {}
        self.renamed: dict[int, int] = {}
        # Of the ops that read what backward must not find made, which are done before it begins.
        self.read: list[int] = []
        self.begun: list[int] = []
        self.again: list[int] = []
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.operation_of: list[Operation | None] = []
        self.storage_of: list[Storage | None] = []
        self.value_of: dict[Storage, int] = {}
        # What the step returns: a kernel that is run again makes it once more, and drops it.
        outputs = (*graph.forward_outputs, *graph.gradients)
        self.kept = {graph.storage_of[node] for node in outputs}
        for storage, nbytes in _counted_bytes(graph).items():
            self.value_of[storage] = self._value(storage.maker.name, nbytes, storage=storage)

    def run(self) -> Lowering:
        graph = self.graph
        mutated = mutated_placeholders(graph, graph.nodes)
        effect_token: int | None = None
        random_token: dict[torch.device | None, int] = {}
        read_tokens: dict[fx.Node, list[int]] = {placeholder: [] for placeholder in mutated}
        written: set[fx.Node] = set()
        tangents_op = -1
        called = self._add_call()
        for position, operation in enumerate(graph.operations):
            if position == graph.first_backward:
                tangents_op = self._add_tangents(effect_token, random_token.values())
            self._make_again(operation.reads)
            inputs = [self.value_of[s] for s in operation.reads]
            outputs = [self.value_of[s] for s in operation.makes]
            if all(storage.resident for storage in operation.reads):
                inputs += called
            again = self._rerun(operation, inputs, outputs)
            if any(is_effect(node) for node in operation.nodes):
                effect_token = self._chain(operation, inputs, outputs, effect_token)
            for placeholder in mutated_placeholders(graph, operation.nodes):
                inputs += read_tokens[placeholder]
                written.add(placeholder)
            for node in operation.nodes:
                for storage in () if is_effect(node) else graph.storages_read(node):
                    if storage.maker in written and isinstance(node.target, Kernel):
                        # It reads what was written, where an op would read what was there before.
                        inputs += [effect_token] if effect_token not in (None, *inputs) else []
                    elif storage.maker in read_tokens:
                        outputs.append(self._token(operation))
                        read_tokens[storage.maker].append(outputs[-1])
            if again is not None and operation.mode.form is Form.REPLAY_RNG:
                outputs.append(again.inputs[-1])
            draws = [node for node in operation.nodes if is_random(node)]
            for device in dict.fromkeys(generator_device(graph, node) for node in draws):
                # The stream is drawn from in the order of the graph.
                token = self._chain(operation, inputs, outputs, random_token.get(device))
                random_token[device] = token
            if not self.begun and not self.waiting.keys().isdisjoint(operation.reads):
                self.read.append(self._token(operation))
                outputs.append(self.read[-1])
            if again is not None and operation in self.made_again:
                made = [s for s in operation.makes if self.value_of[s] in again.outputs]
                self.waiting.update(dict.fromkeys(made, (operation, again)))
                again = None
            self._add(
                operation.name,
                inputs,
                outputs,
                operation=operation,
                cost=operation.cost.seconds,
                workspace_bytes=operation.cost.workspace_bytes,
                again=again,
            )
        if graph.first_backward == len(graph.operations):
            tangents_op = self._add_tangents(effect_token, random_token.values())
        done = self._add_accumulation()
        return Lowering(
            graph=graph,
            problem=RematProblem(
                ops=tuple(self.ops),
                values=tuple(self.values),
                inputs=tuple(v for s, v in self.value_of.items() if s.resident),
                outputs=(*self._outputs(), *done),
                first_backward_op=tangents_op,
            ),
            operation_of=tuple(self.operation_of),
            storage_of=tuple(self.storage_of),
            tangents_op=tangents_op,
            in_place=self._in_place(),
            again=frozenset(self.again),
        )

    def _make_again(self, storages: Iterable[Storage]) -> None:
        """Once backward has begun: the ops without which these are not there, inputs first."""
        stack = [list(storages)] if self.begun else []
        while stack:
            if not stack[-1]:
                stack.pop()
                continue
            storage = stack[-1].pop()
            if storage not in self.waiting:
                continue
            operation, again = self.waiting[storage]
            first = [s for s in operation.reads if s in self.waiting]
            if first:
                stack += [[storage], first]
                continue
            for made in operation.makes:
                self.waiting.pop(made, None)
            self._add_again(operation, again)

    def _add_again(self, operation: Operation, again: Rerun) -> None:
        """The op that makes again what an operation made, for backward alone."""
        inputs = (*(self.renamed.get(value, value) for value in again.inputs), *self.begun)
        for value in again.outputs:
            storage, first = self.storage_of[value], self.values[value]
            assert storage is not None
            new = self._value(f"{first.name}_recomputed", first.nbytes, storage=storage)
            self.renamed[value] = self.value_of[storage] = new
        rerun = replace(
            again, inputs=inputs, outputs=tuple(self.renamed[value] for value in again.outputs)
        )
        self.again.append(len(self.ops))
        self._add(
            f"{operation.name}_recomputed",
            rerun.inputs,
            rerun.outputs,
            operation=operation,
            cost=rerun.cost,
            workspace_bytes=rerun.workspace_bytes,
            again=rerun,
        )

    def _in_place(self) -> dict[int, tuple[tuple[int, int], ...]]:
        """What kernels can write over: storages of the step's own, whole, that nobody else holds.

        What forward returns, and the tangents, may be the caller's. A graph that is a part of a
        step writes nothing in place: what it returns is taken to be others' to hold.
        """
        graph, found = self.graph, dict[int, tuple[tuple[int, int], ...]]()
        if not graph.memory.holds_outputs:
            return found
        shown = (*graph.forward_outputs, *graph.gradients, *graph.tangents, *graph.made_by_call)
        held = {graph.storage_of[node] for node in shown}
        for op, operation in enumerate(self.operation_of):
            node = operation.nodes[0] if operation is not None else None
            if node is None or not isinstance(node.target, Kernel) or node.target.draws:
                continue
            made_by = {storage.position: storage for storage in graph.made_by.get(node, ())}
            pairs: list[tuple[int, int]] = []
            taken: set[Storage] = set()
            for position, argument in node.target.in_place:
                given = node.args[argument]
                if not isinstance(given, fx.Node) or position not in made_by:
                    continue
                made, over = made_by[position], graph.storage_of[given]
                whole = _fills(traced_value(given), over) and made.nbytes == over.nbytes
                if whole and not over.resident and not {made, over} & (held | taken):
                    taken |= {made, over}
                    pairs.append((self.value_of[made], self.value_of[over]))
            if pairs:
                found[op] = tuple(pairs)
        return found

    def _rerun(self, operation: Operation, reads: list[int], makes: list[int]) -> Rerun | None:
        """How an operation runs again, if it does. A random one reads its state last."""
        cost, form = operation.cost, operation.mode.form
        workspace_bytes = cost.workspace_bytes
        if form is Form.NEVER:
            return None
        if form is Form.REPLAY_RNG:
            device = generator_device(self.graph, operation.node)
            nbytes = self.graph.memory.generator_state(device)
            state = self._value(f"{operation.name}_rng_state", nbytes, lazy=True)
            # The current state is set aside while the first run's is in place.
            workspace_bytes += nbytes
            return Rerun((*reads, state), tuple(makes), cost.seconds, workspace_bytes)
        if form is Form.BATCH_NORM:
            normalised = operation.node.args[:_RUNNING_STATISTICS]
            arguments = [self.graph.storage_of[a] for a in normalised if isinstance(a, fx.Node)]
            reads = list(dict.fromkeys(self.value_of[storage] for storage in arguments))
            makes = [self.value_of[s] for s in operation.makes if s.position < _NEW_STATISTICS]
        if any(isinstance(node.target, Kernel) for node in operation.nodes):
            again = [s for s in operation.makes if s not in self.kept]
            makes = [self.value_of[s] for s in again]
            workspace_bytes += sum(
                self.values[self.value_of[s]].nbytes for s in operation.makes if s in self.kept
            )
        return Rerun(tuple(reads), tuple(makes), cost.seconds, workspace_bytes)

    def _add_call(self) -> list[int]:
        """The op before forward, where there is one; the token that it makes."""
        made = [self.value_of[self.graph.storage_of[n]] for n in self.graph.made_by_call]
        if not made:
            return []
        token = self._value("call_token", 0)
        self._add("call", [], [*made, token])
        return [token]

    def _add_tangents(self, effect_token: int | None, random_tokens: Iterable[int]) -> int:
        """The op between forward and backward."""
        graph = self.graph
        held = (*graph.forward_outputs, *graph.made_by_call)
        inputs = [self.value_of[graph.storage_of[n]] for n in held]
        inputs += [effect_token] if effect_token is not None else []
        inputs += [*random_tokens, *self.read]
        outputs = [self.value_of[graph.storage_of[n]] for n in graph.tangents]
        if self.waiting:
            self.begun = [self._value("backward_token", 0)]
        outputs += self.begun
        self._add("tangents", list(dict.fromkeys(inputs)), list(dict.fromkeys(outputs)))
        return len(self.ops) - 1

    def _add_accumulation(self) -> list[int]:
        """The op after backward, where there is one; what it makes is an output of the step."""
        nbytes = accumulated_bytes(self.graph)
        if not nbytes:
            return []
        gradients = dict.fromkeys(self.graph.storage_of[n] for n in self.graph.gradients)
        done = self._value("accumulated", 0)
        inputs = [self.value_of[storage] for storage in gradients]
        self._add("accumulate_gradients", inputs, [done], workspace_bytes=nbytes)
        return [done]

    def _outputs(self) -> tuple[int, ...]:
        graph = self.graph
        # Larger tangents are handed over and freed after their last use.
        kept = (*graph.gradients, *graph.scalar_tangents)
        if graph.memory.holds_outputs:
            kept = (*graph.forward_outputs, *kept)
        storages = dict.fromkeys(graph.storage_of[node] for node in kept)
        return tuple(self.value_of[s] for s in storages if not s.resident)

    def _chain(
        self, operation: Operation, inputs: list[int], outputs: list[int], previous: int | None
    ) -> int:
        """Put an operation behind the one that made the token `previous`; its own is returned."""
        if previous is not None:
            inputs.append(previous)
        outputs.append(self._token(operation))
        return outputs[-1]

    def _add(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        operation: Operation | None = None,
        cost: float = 0.0,
        workspace_bytes: int = 0,
        again: Rerun | None = None,
    ) -> None:
        reruns = () if again is None else (again,)
        self.ops.append(Op(name, tuple(inputs), tuple(outputs), cost, workspace_bytes, reruns))
        self.operation_of.append(operation)

    def _value(
        self, name: str, nbytes: int, *, lazy: bool = False, storage: Storage | None = None
    ) -> int:
        self.values.append(Value(name, nbytes, lazy))
        self.storage_of.append(storage)
        return len(self.values) - 1

    def _token(self, operation: Operation) -> int:
        return self._value(f"{operation.name}_token", 0)


def _made_again(graph: JointGraph) -> frozenset[Operation]:
    return frozenset(operation for operation in graph.forward if operation.mode.again)


def _fills(value: object, storage: Storage) -> bool:
    """Whether a tensor is all of its storage."""
    assert isinstance(value, torch.Tensor)
    return not value.storage_offset() and value.numel() * value.element_size() == storage.nbytes


def _counted_bytes(graph: JointGraph) -> dict[Storage, int]:
    """The storages of the problem, in order, and what each counts for.

    What lives only between the nodes of one operation is a part of its workspace.
    """
    made = {
        storage: nbytes
        for operation in graph.operations
        for storage, nbytes in operation.cost.made_bytes.items()
    }

    def counted(storage: Storage) -> int:
        if storage.resident or not graph.memory.counts(storage.device):
            return 0
        return made.get(storage, storage.nbytes)  # What is no operation's: tangents.

    return {
        storage: counted(storage)
        for storage in graph.storages
        if storage.maker.op != "call_function" or storage in made
    }
