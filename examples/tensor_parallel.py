"""Tensor parallel: parallelize the modules, then optimize the model.

torchrun --nproc-per-node 2 examples/tensor_parallel.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import fxremat


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.gelu(self.up(self.norm(x)))
        return x + nn.functional.dropout(self.down(hidden), 0.1)


class Model(nn.Module):
    """Returns its loss, so that the loss is planned, too."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x.square().mean()


def build(budget: float | None, **options: Any) -> nn.Module:
    """The parallelized model; without a budget in plain DTensors."""
    torch.manual_seed(0)
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    model = Model()
    for block in model.blocks:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    if budget is None:
        return model
    return fxremat.optimize(model, budget=budget, **options)


def train(model: Any, steps: int = 3) -> list[int]:
    """The peak memory of each step in bytes."""
    torch.manual_seed(0)  # inputs and dropout are the same on every rank
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    peaks: list[int] = []
    for _ in range(steps):
        x = torch.randn(64, 16)
        peaks.append(fxremat.measure_peak(lambda x=x: model(x).backward()).peak_bytes)
        optimizer.step()
        optimizer.zero_grad()
    return peaks


def main() -> None:
    dist.init_process_group("gloo")
    for budget in (None, 0.7):
        peaks = train(build(budget))
        print(f"rank {dist.get_rank()}, budget {budget}: peak {peaks[-1]:,} B")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
