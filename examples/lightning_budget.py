"""Lightning: two ways to train under a budget. The callback plans the loss, too.

python examples/lightning_budget.py
"""

from __future__ import annotations

import lightning
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fxremat
from fxremat.integrations.lightning import MemoryBudget

WIDTH, CLASSES = 32, 8


def network() -> nn.Module:
    """Blocks of two linear layers, with dropout."""
    block = [nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * WIDTH, WIDTH)]
    layers = [nn.Sequential(*block, nn.LayerNorm(WIDTH)) for _ in range(3)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


class Classifier(lightning.LightningModule):
    """Nothing here knows of a budget: the callback plans `training_step`."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network()

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        x, y = batch
        logits = self.model(x)
        loss = F.cross_entropy(logits, y)
        self.log("loss", loss, prog_bar=True)
        self.log("accuracy", (logits.argmax(-1) == y).float().mean())
        return loss

    def validation_step(self, batch: list[torch.Tensor], _index: int) -> None:
        x, y = batch
        self.log("validation_loss", F.cross_entropy(self.model(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class OptimizesItself(Classifier):
    """The other way: the network alone is planned. It works with manual optimization, too."""

    def configure_model(self) -> None:
        self.model = fxremat.optimize(self.model, budget=0.7)


def batches(count: int) -> DataLoader:
    """Random pictures' features and classes, in batches of 64; the last one is smaller."""
    x = torch.randn(64 * count - 16, WIDTH)
    return DataLoader(TensorDataset(x, torch.randint(CLASSES, (len(x),))), batch_size=64)


def main() -> None:
    lightning.seed_everything(0)
    common = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "gradient_clip_val": 1.0}
    common |= {"enable_progress_bar": False, "enable_checkpointing": False}
    common |= {"enable_model_summary": False}

    budget = MemoryBudget(0.7)
    trainer = lightning.Trainer(callbacks=[budget], accumulate_grad_batches=2, **common)
    trainer.fit(Classifier(), batches(4), batches(1))
    print(fxremat.explain(budget.training_step))

    module = OptimizesItself()
    lightning.Trainer(precision="bf16-mixed", **common).fit(module, batches(4), batches(1))
    print(fxremat.explain(module.model))


if __name__ == "__main__":
    main()
