"""The executor that runs op by op: every node is a unit, its result freed after its last use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.execute.executor import Boxed
from fxremat.execute.lifetimes import timeline
from fxremat.graph import Cost, JointGraph, Operation
from fxremat.memory_model import MemoryModel
from fxremat.rewrite import Rewritten


@dataclass(frozen=True)
class Eager:
    """Boxed execution of generated code, one kernel after the other."""

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
