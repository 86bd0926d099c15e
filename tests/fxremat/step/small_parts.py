"""A part to try limits and fronts on: the lowered graph of a small network."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of
from fxremat.lower.lowering import Lowering


@cache
def lowered_part() -> Lowering:
    """Four layers with dropout, whose output is held by who called them."""
    layers = [m for _ in range(4) for m in (nn.Linear(32, 64), nn.GELU(), nn.Dropout(0.1))]
    shrink = [nn.Linear(64, 32) for _ in range(4)]
    chain = nn.Sequential(*(m for k in range(4) for m in (*layers[3 * k : 3 * k + 3], shrink[k])))
    x = torch.randn(64, 32, requires_grad=True)
    model = fxremat.optimize(chain, budget=1.0, cost="flops", example_inputs=(x,))
    graph = compiled_of(model).backend.history.graphs[-1].plan.graph
    memory = replace(graph.memory, holds_outputs=False)
    return Lowering.apply(replace(graph, memory=memory))
