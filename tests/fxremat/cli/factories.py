"""Factories that commands can't use."""

from __future__ import annotations

import torch
from torch import nn

NUMBER = 3


class Breaks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x).sum()
        return y * 2 if y.item() > 0 else y


def breaks() -> tuple[nn.Module, torch.Tensor]:
    return Breaks(), torch.randn(4, 8)


def fails() -> tuple[nn.Module, torch.Tensor]:
    raise ValueError("no data here")


def reads_a_tensor() -> tuple[object, torch.Tensor]:
    """A function of a tensor that nothing names as a parameter."""
    weight = torch.randn(64, 64, requires_grad=True)
    return (lambda x: (x @ weight).relu().sum()), torch.randn(32, 64)
