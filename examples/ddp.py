"""Data parallel: optimize first, then wrap in DDP.

torchrun --nproc-per-node 2 examples/ddp.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

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
    """Returns its loss, so that the loss is planned, too."""

    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return nn.functional.mse_loss(x, y)


def build(budget: float | None, **options: Any) -> nn.Module:
    """The model of this rank; without a budget in plain DDP."""
    torch.manual_seed(0)
    model: nn.Module = Model()
    if budget is not None:
        model = fxremat.optimize(model, budget=budget, **options)
    # Gradients are views of the buckets, which DDP keeps: they are there once, not twice.
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def train(model: Any, steps: int = 3) -> list[int]:
    """The peak memory of each step in bytes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(dist.get_rank())
    peaks: list[int] = []
    for _ in range(steps):
        with model.no_sync():  # two batches a step: gradients are reduced after the second
            model(torch.randn(64, 32), torch.randn(64, 32)).backward()
        x, y = torch.randn(64, 32), torch.randn(64, 32)
        measured = fxremat.measure_peak(lambda x=x, y=y: model(x, y).backward())
        peaks.append(measured.peak_bytes)
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
