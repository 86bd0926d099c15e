"""Lightning: a LightningModule whose own call is never made is heard, the way out is planned."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fxremat
from fxremat.frontend.compiled import compiled_of

lightning = pytest.importorskip("lightning")


class Net(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        layers = [m for _ in range(3) for m in (nn.Linear(16, 16), nn.GELU())]
        self.model = nn.Sequential(*layers)

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        return self.model(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Net) -> list[warnings.WarningMessage]:
    """Train for one epoch of four batches; the warnings about steps without a plan."""
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        trainer.fit(module, DataLoader(TensorDataset(torch.randn(32, 16)), batch_size=8))
    return [w for w in heard if w.category is fxremat.UnplannedStepWarning]


def test_a_training_step_that_goes_past_the_plan_is_heard_once() -> None:
    optimized = fxremat.optimize(Net(), budget=1.0)
    heard = fit(optimized)
    assert len(heard) == 1
    assert "self.model = fxremat.optimize" in str(heard[0].message)
    assert not compiled_of(optimized).backend.history.graphs


def test_the_way_out_is_planned() -> None:
    module = Net()
    module.model = fxremat.optimize(module.model, budget=1.0)
    assert not fit(module)
    assert compiled_of(module.model).backend.steps.count == 4
