"""Fully sharded (FSDP2): shard the blocks and the root, then optimize the root.

torchrun --nproc-per-node 2 examples/fsdp.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import fxremat


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(0.1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class Model(nn.Module):
    def __init__(self, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def build(budget: float | None, dtype: torch.dtype | None = None, **options: Any) -> nn.Module:
    """The sharded model; without a budget in plain FSDP2."""
    torch.manual_seed(0)
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=dtype)
    model = Model()
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    if budget is None:
        return model
    # FSDP's hooks stand between the blocks: each is a graph, and all share the budget.
    return fxremat.optimize(model, budget=budget, **options)


def train(model: Any, steps: int = 3) -> list[int]:
    """The peak memory of each step in bytes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(dist.get_rank())
    peaks: list[int] = []

    def step(x: torch.Tensor) -> None:
        model(x).float().square().mean().backward()

    for _ in range(steps):
        model.set_requires_gradient_sync(False)  # two batches a step
        step(torch.randn(64, 16))
        model.set_requires_gradient_sync(True)
        x = torch.randn(64, 16)
        peaks.append(fxremat.measure_peak(lambda x=x: step(x)).peak_bytes)
        optimizer.step()
        optimizer.zero_grad()
    return peaks


def main() -> None:
    dist.init_process_group("gloo")
    for budget in (None, 0.8):
        peaks = train(build(budget), steps=5)
        print(f"rank {dist.get_rank()}, budget {budget}: peak {peaks[-1]:,} B")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
