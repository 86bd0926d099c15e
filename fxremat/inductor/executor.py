"""The executor that runs the kernels that Inductor compiled, in the order of a plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.capture.read import read_joint_graph
from fxremat.errors import UnsupportedGraphError
from fxremat.execute.executor import Boxed
from fxremat.execute.lifetimes import timeline
from fxremat.graph import Cost, JointGraph, Operation
from fxremat.inductor.compile import compiled
from fxremat.inductor.graph import ALIGNED, kernel_graph
from fxremat.inductor_hooks import (
    ALIGNMENT,
    copy_aligned,
    make_inductor_backend,
    missing_compiler,
)
from fxremat.kernel import Kernel
from fxremat.measure.profile_ops import OpProfiles
from fxremat.memory_model import MemoryModel
from fxremat.nodes import traced_value
from fxremat.rewrite import Rewritten
from fxremat.torch_hooks import GraphCompiler, OnTraced, Partitioner

_LOG = logging.getLogger("fxremat")


@dataclass(frozen=True)
class Inductor:
    """Compiled kernels behind Python functions: each is a node, and its buffers are values."""

    name: str = "inductor"

    def backend(
        self, partitioner: Partitioner, compile_graph: GraphCompiler, on_traced: OnTraced
    ) -> Callable[..., Callable[..., Any]]:
        return make_inductor_backend(partitioner, compile_graph, on_traced)

    def capture(
        self,
        joint: fx.GraphModule,
        num_fwd_outputs: int,
        static_lifetime_input_indices: tuple[int, ...],
        memory_of: Callable[[torch.device], MemoryModel],
        profiles: OpProfiles,  # noqa: ARG002
    ) -> JointGraph:
        """The kernels of both halves, compiled once as Inductor would."""
        device_type = _device_type(joint)
        missing = missing_compiler(device_type)
        if missing:
            raise UnsupportedGraphError(
                f"Inductor needs {missing} to compile kernels, which isn't found: install it, or "
                "use executor='eager'"
            )
        if any(torch_hooks.mark_of(node) for node in joint.graph.nodes):
            _LOG.warning(
                "fxremat.keep has no effect on Inductor's kernels, which make many values at once: "
                "name modules in policy=, or use executor='eager'"
            )
        pair = compiled(joint, num_fwd_outputs, static_lifetime_input_indices)
        kernels = kernel_graph(joint, pair, device_type)
        graph = read_joint_graph(kernels, num_fwd_outputs, static_lifetime_input_indices, memory_of)
        return replace(graph, executor=self.name)

    def memory(self, device: torch.device) -> MemoryModel:
        return MemoryModel(device)

    def units(self, graph: JointGraph) -> JointGraph:
        return graph

    def cost(self, unit: Operation, nodes: Sequence[Cost]) -> Cost:  # noqa: ARG002
        (cost,) = nodes
        return cost

    def predict(self, rewritten: Rewritten, memory: MemoryModel) -> Sequence[int]:
        return timeline(rewritten, memory)

    def compile(self, graph: fx.GraphModule) -> Boxed:
        for node in graph.graph.nodes:
            if isinstance(node.target, Kernel):
                node.target = node.target.run
        return _on_device(torch_hooks.boxed_executor(graph), graph)


def _on_device(run: Boxed, graph: fx.GraphModule) -> Boxed:
    """What runs kernels on a GPU: it is the current one, and arguments begin where they must."""
    given = graph.graph.find_nodes(op="placeholder")
    devices = {
        value.device
        for node in given
        if isinstance(value := traced_value(node), torch.Tensor) and value.device.type != "cpu"
    }
    aligned = [position for position, node in enumerate(given) if ALIGNED in node.meta]
    if not devices:
        return run
    device = devices.pop()

    def run_there(arguments: list[Any]) -> Any:
        for position in aligned:
            if arguments[position].data_ptr() % ALIGNMENT:
                arguments[position] = copy_aligned(arguments[position])
        with torch.cuda.device(device):
            return run(arguments)

    return run_there


def _device_type(joint: fx.GraphModule) -> str:
    """Where the kernels run: CPU tensors beside a GPU are only brought along."""
    values = [traced_value(node) for node in joint.graph.find_nodes(op="placeholder")]
    types = {value.device.type for value in values if isinstance(value, torch.Tensor)}
    return next(iter(types - {"cpu"}), "cpu")
