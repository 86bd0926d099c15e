"""The executor that runs op by op: every node is a unit, its result freed after its last use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.capture.cpu_dropout import split_dropout
from fxremat.capture.data_sizes import bound_data_sizes
from fxremat.capture.kernel_layouts import set_kernel_layouts
from fxremat.capture.read import read_joint_graph
from fxremat.execute.executor import Boxed
from fxremat.execute.lifetimes import timeline
from fxremat.graph import Cost, JointGraph, Operation
from fxremat.measure.profile_ops import OpProfiles
from fxremat.memory_model import MemoryModel
from fxremat.rewrite import Rewritten
from fxremat.torch_hooks import GraphCompiler, OnTraced, Partitioner


@dataclass(frozen=True)
class Eager:
    """Boxed execution of generated code, one kernel after the other."""

    name: str = "eager"

    def backend(
        self, partitioner: Partitioner, compile_graph: GraphCompiler, on_traced: OnTraced
    ) -> Callable[..., Callable[..., Any]]:
        return torch_hooks.make_aot_backend(partitioner, compile_graph, on_traced)

    def capture(
        self,
        joint: fx.GraphModule,
        num_fwd_outputs: int,
        static_lifetime_input_indices: tuple[int, ...],
        memory_of: Callable[[torch.device], MemoryModel],
        profiles: OpProfiles,
    ) -> JointGraph:
        """Dropout in two ops on the CPU, and the layouts that kernels return, are put in place."""
        split_dropout(joint)
        bound_data_sizes(joint)

        def read() -> JointGraph:
            return read_joint_graph(
                joint, num_fwd_outputs, static_lifetime_input_indices, memory_of
            )

        graph = read()
        return read() if set_kernel_layouts(graph, profiles) else graph

    def memory(self, device: torch.device) -> MemoryModel:
        return MemoryModel(device)

    def units(self, graph: JointGraph) -> JointGraph:
        return graph

    def cost(self, unit: Operation, nodes: Sequence[Cost]) -> Cost:
        assert len(unit.nodes) == 1
        return nodes[0]

    def predict(self, rewritten: Rewritten, memory: MemoryModel) -> Sequence[int]:
        return timeline(rewritten, memory)

    def compile(self, graph: fx.GraphModule) -> Boxed:
        return torch_hooks.boxed_executor(graph)
