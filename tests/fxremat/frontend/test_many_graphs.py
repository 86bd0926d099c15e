"""A model that is compiled again and again is said once, with the time that took."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from fxremat.frontend import many_graphs


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x.sum()


@pytest.mark.parametrize("regions", [None, "blocks"])
def test_shapes_are_said_once_and_equal_blocks_are_none(
    regions: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_graphs, "_MANY", 3)
    model = fxremat.optimize(Model(), budget=1.0, regions=regions)

    def said() -> list[str]:
        return [r.message for r in caplog.records if "where one would do" in r.message]

    for rows in (4, 4, 5, 4, 5):
        model(torch.randn(rows, 8)).backward()
    assert not said()
    for rows in (6, 7):
        model(torch.randn(rows, 8)).backward()
    (line,) = said()
    assert line.startswith("3 graphs")
    assert "pad_to_multiple" in line
