"""Schedule -> forward graph and backward graph that follow it op for op.

First the whole schedule is written out as one joint graph: every run of an operation is a node,
recomputed ones named ``<name>_recomputed[_k]``; a view is written where it is first needed after
each computation of its storage. Then torch splits it where the schedule has the tangents, at the
residuals: one tensor for each storage that backward still reads.
"""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.aliases import last_common, named, viewed
from fxremat.errors import UnsupportedGraphError
from fxremat.graph import Form, JointGraph, Storage
from fxremat.kernel import (
    Kernel,
    from_generator_state,
    keeping_generator_state,
    writing_in_place,
)
from fxremat.lower.lowering import Program, Run
from fxremat.memory_model import generator_state_bytes
from fxremat.nodes import (
    BOUNDED,
    is_identity,
    is_number_of_data,
    is_tuple,
    map_nodes,
    outputs_of,
    returned,
    tensors_of,
    traced_value,
)

aten = torch.ops.aten

# Keys in a rewritten node's meta: which run of the program it is a part of, what that run takes
# beyond what it makes, and the sizes of the node's new storages, nested as its outputs are.
UNIT = "fxremat_unit"
WORKSPACE = "fxremat_workspace_bytes"
OUTPUTS = "fxremat_output_bytes"


@dataclass(frozen=True)
class Rewritten:
    """The two graphs. The forward graph returns `num_fwd_outputs` of the user's, then residuals."""

    forward: fx.GraphModule
    backward: fx.GraphModule
    num_fwd_outputs: int


def rewrite(joint: JointGraph, program: Program) -> Rewritten:
    """The graphs of a program that runs all of the joint graph, which is not changed."""
    writer = _Writer(joint, program)
    scheduled, saved = writer.write()
    if any(isinstance(node.target, Kernel) for node in scheduled.graph.nodes):
        halves = _split_kernels(joint, scheduled, saved, writer)
        return Rewritten(*halves, joint.num_fwd_outputs)
    forward, backward = torch_hooks.extract_forward_and_backward(
        scheduled,
        saved,
        num_fwd_outputs=joint.num_fwd_outputs,
        static_lifetime_input_indices=joint.static_lifetime_input_indices,
    )
    # The split copies whatever can be computed on either side; keep what belongs there.
    _drop_unused(forward, writer.forward_names)
    _drop_unused(backward, writer.backward_names)
    return Rewritten(forward, backward, joint.num_fwd_outputs)


def _split_kernels(
    joint: JointGraph, scheduled: fx.GraphModule, saved: list[fx.Node], writer: _Writer
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """A scheduled graph of kernels in two.

    torch's own split would drop kernels that only write to an input: it knows effects by schemas.
    """
    nodes = list(scheduled.graph.nodes)
    results = returned(scheduled.graph)
    number = joint.num_fwd_outputs
    given = [node for node in nodes if node.op == "placeholder"]
    primals = [node for node in given if not torch_hooks.is_tangent(node)]
    tangents = [node for node in given if torch_hooks.is_tangent(node)]

    def half(inputs: list[fx.Node], names: set[str], outputs: list[Any]) -> fx.GraphModule:
        graph = fx.Graph()
        new: dict[fx.Node, fx.Node] = {}
        for node in inputs:
            new[node] = graph.placeholder(node.name)
            new[node].meta = copy.copy(node.meta)
        for node in nodes:
            if node.name in names and node.op in ("call_function", "get_attr"):
                new[node] = graph.node_copy(node, lambda arg: new[arg])
        graph.output(map_nodes(tuple(outputs), lambda arg: new[arg]))
        return torch_hooks.lazy_graph_module(scheduled, graph)

    forward = half(primals, writer.forward_names, [*results[:number], *saved])
    backward = half([*saved, *tangents], writer.backward_names, results[number:])
    return forward, backward


def _drop_unused(module: fx.GraphModule, belongs: set[str]) -> None:
    def must_stay(node: fx.Node) -> bool:
        if node.op in ("placeholder", "output"):
            return True
        return node.name in belongs and node.is_impure()

    module.graph.eliminate_dead_code(is_impure_node=must_stay)
    module.recompile()


class _Writer:
    """Writes the scheduled joint graph.

    `current` holds, for each storage, the nodes of its latest computation: the tensor itself and
    the views of it written so far, by the node of the joint graph that they stand for.
    """

    def __init__(self, joint: JointGraph, program: Program) -> None:
        self.joint = joint
        self.program = program
        self.graph = fx.Graph()
        self.current: dict[Storage, dict[fx.Node, fx.Node]] = {}
        # What is no tensor: Python numbers that change from step to step, and the like.
        self.others: dict[fx.Node, fx.Node] = {}
        self.states: dict[fx.Node, fx.Node] = {}
        self.written: set[fx.Node] = set()
        self.runs_written = 0
        self.in_backward = False
        self.forward_names: set[str] = set()
        self.backward_names: set[str] = set()
        self.outputs_of = _getitems(joint)

    def write(self) -> tuple[fx.GraphModule, list[fx.Node]]:
        joint = self.joint
        module = joint.module
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
        results: dict[fx.Node, fx.Node] = {}
        for run in self.program.forward:
            self._write_run(run)
        for node in returned(module.graph)[: joint.num_fwd_outputs]:
            if isinstance(node, fx.Node):
                results[node] = self._exact(node) if self._is_tensor(node) else self._argument(node)
        self._cross()
        self.in_backward = True
        for run in self.program.backward:
            self._write_run(run)
        for node in returned(module.graph)[joint.num_fwd_outputs :]:
            # A forward output that is a gradient too keeps the forward's node.
            if isinstance(node, fx.Node) and node not in results:
                results[node] = self._exact(node) if self._is_tensor(node) else self._argument(node)
        output = next(iter(module.graph.find_nodes(op="output")))
        written = self.graph.output(map_nodes(output.args[0], lambda n: results[n]))
        written.meta = copy.copy(output.meta)
        scheduled = torch_hooks.lazy_graph_module(module, self.graph)
        return scheduled, self._saved()

    def _placeholder(self, node: fx.Node) -> None:
        new = self.graph.placeholder(node.name)
        new.target = node.target
        new.meta = copy.copy(node.meta)
        self.written.add(node)
        self.forward_names.add(new.name)
        storage = self.joint.storage_of.get(node)
        if storage is not None:
            self.current.setdefault(storage, {})[node] = new
        else:
            self.others[node] = new

    def _is_tensor(self, node: fx.Node) -> bool:
        return node in self.joint.storage_of

    def _write_run(self, run: Run) -> None:
        """Write one run of an operation."""
        form = run.operation.mode.form
        for node in run.operation.nodes:
            args = map_nodes(node.args, self._argument)
            kwargs = map_nodes(node.kwargs, self._argument)
            if form is Form.REPLAY_RNG and run.repeated:
                new = self._write_random(node, args, kwargs, run)
            elif form is Form.BATCH_NORM and not run.first:
                new = self._write_batch_norm(node, args, run)
            elif run.in_place:
                new = self._write_in_place(node, args, run)
            else:
                new = self._write(node, node.target, args, kwargs, run=run)
            made = self._made(node, run)
            if is_tuple(node):
                for storage in made:
                    self.current[storage] = {}
                    self._write_outputs(node, new, storage)
            elif made:
                self.current[made[0]] = {node: new}
        self.runs_written += 1

    def _write_in_place(self, node: fx.Node, args: tuple[Any, ...], run: Run) -> fx.Node:
        """A kernel that writes over what nobody reads after it.

        What forward saved is somebody's where the autograd engine keeps its graph for another
        backward: whether it does is asked when the kernel runs.
        """
        kernel, over = node.target, dict(run.in_place)
        assert isinstance(kernel, Kernel)
        values = list(outputs_of(traced_value(node)))
        position_of = {storage: storage.position for storage in self.joint.made_by[node]}
        argument_of = {
            self.joint.storage_of[arg]: k
            for k, arg in enumerate(node.args)
            if isinstance(arg, fx.Node)
        }
        pairs = tuple((position_of[made], argument_of[old]) for made, old in over.items())
        is_saved = False
        mode = torch_hooks.fake_mode_of(node)
        assert mode is not None
        for made, argument in pairs:
            given = args[argument]
            is_saved = is_saved or (self.in_backward and given.name in self.forward_names)
            value = values[made]
            with mode:
                values[made] = given.meta["val"].as_strided(value.size(), value.stride())
        target = writing_in_place(
            kernel, pairs, is_kept=torch_hooks.keeps_graph if is_saved else None
        )
        value = tuple(values) if is_tuple(node) else values[0]
        return self._write(node, target, args, {}, value=value, run=run)

    def _made(self, node: fx.Node, run: Run) -> list[Storage]:
        """The storages of a node that a run makes anew: all runs do those inside a unit."""
        return [
            storage
            for storage in self.joint.made_by.get(node, ())
            if storage in run.makes or storage not in run.operation.makes
        ]

    def _write_outputs(self, node: fx.Node, new: fx.Node, storage: Storage) -> None:
        getitems = self.outputs_of.get((node, storage.position), ())
        for getitem in getitems[:1]:
            item = self._write(getitem, operator.getitem, (new, storage.position), {})
            self.current[storage].update(dict.fromkeys(getitems, item))

    def _write(
        self,
        node: fx.Node,
        target: Any,
        args: Any,
        kwargs: Any,
        *,
        suffix: str = "",
        value: Any = None,
        run: Run | None = None,
    ) -> fx.Node:
        """Add a node that stands for `node` of the joint graph: a part of a run, or a view."""
        name = f"{node.name}{suffix}"
        if node in self.written and not suffix:
            name = f"{node.name}_recomputed"
        new = self.graph.create_node("call_function", target, args, kwargs, name=name)
        if not suffix:
            self.written.add(node)
        new.meta = copy.copy(node.meta)
        if value is not None:
            new.meta["val"] = value
            new.meta.pop(BOUNDED, None)
        if run is not None:
            new.meta[UNIT] = self.runs_written
            new.meta[WORKSPACE] = run.workspace_bytes
            new.meta[OUTPUTS] = self._output_bytes(node, run)
        if self.in_backward and "partitioner_tag" in new.meta:
            new.meta["partitioner_tag"] = "is_backward"
        (self.backward_names if self.in_backward else self.forward_names).add(new.name)
        return new

    def _output_bytes(self, node: fx.Node, run: Run) -> tuple[int | None, ...]:
        """The sizes of a node's new storages by position; 0 for what lives only in its unit."""
        sizes: list[int | None] = [None] * len(outputs_of(traced_value(node)))
        for storage in self.joint.made_by.get(node, ()):
            sizes[storage.position] = 0
        for storage, nbytes in run.operation.cost.made_bytes.items():
            # What a rerun drops is a part of its workspace.
            if storage.maker is node and storage in run.makes:
                sizes[storage.position] = nbytes
        return tuple(sizes)

    def _write_random(self, node: fx.Node, args: Any, kwargs: Any, run: Run) -> fx.Node:
        """A random op that is recomputed: its first run keeps the generator's state."""
        device = tensors_of(node)[0].device
        target, called = torch_hooks.run_with_rng_state, (node.target,)
        if isinstance(node.target, Kernel):
            target, called = from_generator_state(node.target, device), ()
        if not run.first:
            return self._write(node, target, (self.states[node], *called, *args), kwargs, run=run)
        value = traced_value(node)
        state = _state_like(node)
        target = torch_hooks.run_and_save_rng_state
        if isinstance(node.target, Kernel):
            target = keeping_generator_state(node.target, device)
        both = self._write(
            node,
            target,
            (*called, *args),
            kwargs,
            suffix="_with_rng_state",
            value=(state, value),
            run=run,
        )
        both.meta[OUTPUTS] = (state.numel(), both.meta[OUTPUTS])
        self.states[node] = self._write(
            node, operator.getitem, (both, 0), {}, suffix="_rng_state", value=state
        )
        return self._write(node, operator.getitem, (both, 1), {})

    def _write_batch_norm(self, node: fx.Node, args: tuple[Any, ...], run: Run) -> fx.Node:
        """BatchNorm without running statistics: the same result, and nothing to update."""
        source, weight, bias, _mean, _var, training, momentum, eps = args
        return self._write(
            node,
            aten._native_batch_norm_legit.no_stats,
            (source, weight, bias, training, momentum, eps),
            {},
            value=tuple(traced_value(node)[:3]),
            run=run,
        )

    def _argument(self, node: fx.Node) -> fx.Node:
        if self._is_tensor(node):
            return self._tensor(named(self.joint, node))
        if node.op == "get_attr":
            return self._get_attr(node)
        if node in self.others:
            return self.others[node]
        if torch_hooks.is_symbolic(traced_value(node)):
            args = map_nodes(node.args, self._argument)
            kwargs = map_nodes(node.kwargs, self._argument)
            self.others[node] = self._write(node, node.target, args, kwargs)
            return self.others[node]
        raise UnsupportedGraphError(f"{node.name} is read by an operation but is no tensor")

    def _tensor(self, node: fx.Node) -> fx.Node:
        """The node that holds a tensor of the joint graph now, its view written if need be."""
        views = self.current.setdefault(self.joint.storage_of[node], {})
        if node not in views:
            if node.op == "get_attr":
                views[node] = self._get_attr(node)
            else:
                args = map_nodes(node.args, self._argument)
                kwargs = map_nodes(node.kwargs, self._argument)
                value = self._seen_anew(node)
                views[node] = self._write(node, node.target, args, kwargs, value=value)
        return views[node]

    def _seen_anew(self, node: fx.Node) -> torch.Tensor | None:
        """The value of a kernel's view over memory that was written in place, else None."""
        if not (isinstance(node.target, Kernel) and node.target.is_view):
            return None
        value = traced_value(node)
        over = traced_value(self._tensor(named(self.joint, viewed(self.joint, node))))
        if torch_hooks.storage_key(over) == torch_hooks.storage_key(value) or (
            over.dtype != value.dtype
        ):
            return None
        mode = torch_hooks.fake_mode_of(node)
        assert mode is not None
        with mode:
            return over.as_strided(value.size(), value.stride(), value.storage_offset())

    def _exact(self, node: fx.Node) -> fx.Node:
        """Like `_tensor`, but never another name of it: outputs keep their identity."""
        if node.op == "call_function" and is_identity(node):
            source = self._exact(viewed(self.joint, node))
            return self._write(node, node.target, (source,), {})
        return self._tensor(node)

    def _get_attr(self, node: fx.Node) -> fx.Node:
        new = self.graph.create_node("get_attr", node.target, name=node.name)
        new.meta = copy.copy(node.meta)
        (self.backward_names if self.in_backward else self.forward_names).add(new.name)
        return new

    def _cross(self) -> None:
        """Choose what stands for each storage that backward reads: one tensor a storage."""
        needed: dict[Storage, list[fx.Node]] = {}
        remade: set[Storage] = set()

        def need(node: fx.Node) -> None:
            storage = self.joint.storage_of.get(node)
            if storage is not None and storage not in remade:
                needed.setdefault(storage, []).append(named(self.joint, node))

        for run in self.program.backward:
            for node in run.operation.nodes:
                for arg in node.all_input_nodes:
                    need(arg)
                remade.update(self._made(node, run))
        for node in self.joint.gradients:
            need(node)
        tangents = {self.joint.storage_of[node] for node in self.joint.tangents}
        for storage in list(self.current):
            if storage in tangents:
                continue
            if is_number_of_data(storage.maker):
                continue  # Any view may need it, and it takes nothing.
            if storage not in needed:
                del self.current[storage]
                continue
            shared = last_common(self.joint, needed[storage])
            self.current[storage] = {shared: self._tensor(shared)}
        for storage, nodes in needed.items():
            if storage not in self.current and nodes[0].op != "get_attr":
                raise AssertionError(f"{storage.maker} is read by backward but was dropped")

    def _saved(self) -> list[fx.Node]:
        """What backward reads of the forward part: the residuals, in order of computation."""
        forward = {
            node
            for node in self.graph.nodes
            if node.name in self.forward_names and not torch_hooks.is_tangent(node)
        }
        read: set[fx.Node] = set()
        for node in self.graph.nodes:
            if node.name in self.backward_names:
                read.update(arg for arg in node.all_input_nodes if arg in forward)
        gradients = returned(self.graph)[self.joint.num_fwd_outputs :]
        read.update(g for g in gradients if isinstance(g, fx.Node) and g in forward)
        return [node for node in self.graph.nodes if node in read and node.op != "get_attr"]


def _getitems(joint: JointGraph) -> dict[tuple[fx.Node, int], tuple[fx.Node, ...]]:
    """The getitem nodes of each output of each operation."""
    found: dict[tuple[fx.Node, int], tuple[fx.Node, ...]] = {}
    for node in joint.made_by:
        for user in node.users:
            if user.target is operator.getitem and user in joint.storage_of:
                position = user.args[1]
                assert isinstance(position, int)
                found[node, position] = (*found.get((node, position), ()), user)
    return found


def _state_like(node: fx.Node) -> torch.Tensor:
    """A fake tensor like the generator state that the op's first run keeps."""
    device = tensors_of(node)[0].device
    mode = torch_hooks.fake_mode_of(node)
    assert mode is not None
    with mode:
        return torch.empty(generator_state_bytes(device), dtype=torch.uint8)
