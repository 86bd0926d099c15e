"""What the reports' tests plan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = F.gelu(block(x))
        return x.square().mean()


def factory() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Stack(), torch.randn(512, 16)


def nothing_trained() -> tuple[nn.Module, torch.Tensor]:
    return nn.Identity(), torch.randn(4, 4)
