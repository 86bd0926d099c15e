"""Lightning: a LightningModule whose own call is never made is heard, the ways out are planned.

The same bits as without a budget, what is logged included, and the peak that is measured.
"""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fxremat
from fxremat.frontend.compiled import compiled_of

lightning = pytest.importorskip("lightning")

from examples import lightning_budget  # noqa: E402
from fxremat.integrations.lightning import MemoryBudget  # noqa: E402

QUICK: dict[str, Any] = {"solver": "greedy", "cost": "flops"}


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
    assert "fxremat.integrations.lightning.MemoryBudget" in str(heard[0].message)
    assert "self.model = fxremat.optimize" in str(heard[0].message)
    assert not compiled_of(optimized).backend.history.graphs


def test_the_way_out_is_planned() -> None:
    module = Net()
    module.model = fxremat.optimize(module.model, budget=1.0)
    assert not fit(module)
    assert compiled_of(module.model).backend.steps.count == 4


class Watched(lightning_budget.Classifier):
    """Notes gradients before each optimizer's step, and what was logged in each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[torch.Tensor]] = []
        self.logged: list[dict[str, float]] = []

    def on_before_optimizer_step(self, _optimizer: torch.optim.Optimizer) -> None:
        self.seen.append([p.grad.clone() for p in self.parameters()])

    def on_train_batch_end(self, *_unused: object) -> None:
        names = ("loss", "accuracy")
        self.logged.append({name: float(self.trainer.logged_metrics[name]) for name in names})


class Itself(Watched):
    def configure_model(self) -> None:
        self.model = fxremat.optimize(self.model, budget=self.budget, **QUICK)

    budget: float = 1.0


def trainer(*callbacks: Any, **options: Any) -> Any:
    quiet = ("enable_progress_bar", "enable_checkpointing", "enable_model_summary")
    return lightning.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "logger": False, "log_every_n_steps": 1}
        | dict.fromkeys(quiet, False)
        | options,
        callbacks=list(callbacks),
    )


def trained(module: Any, *callbacks: Any, **options: Any) -> list[torch.Tensor]:
    """What some steps leave, the last on a smaller batch, with a validation after them."""
    torch.manual_seed(3)
    loader = lightning_budget.batches(4)
    torch.manual_seed(4)
    made = trainer(*callbacks, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", fxremat.UnplannedStepWarning)
        made.fit(module, loader, loader)
    assert "validation_loss" in made.logged_metrics
    state = [tensor.clone() for tensor in module.state_dict().values()]
    gradients = [gradient for step in module.seen for gradient in step]
    return [*gradients, *state, made.logged_metrics["validation_loss"], torch.get_rng_state()]


def assert_same(theirs: list[torch.Tensor], ours: list[torch.Tensor]) -> None:
    assert len(theirs) == len(ours)
    assert all(map(torch.equal, theirs, ours))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_callback_trains_to_the_same_bits(precision: str) -> None:
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "precision": precision}
    baseline = Watched()
    module = copy.deepcopy(baseline)
    # AOTAutograd's graph rounds bfloat16 otherwise than eager: then its graph as it is.
    as_it_is = [] if precision == "32-true" else [MemoryBudget(1.0, **QUICK)]
    budget = MemoryBudget(0.7, **QUICK)
    assert_same(trained(baseline, *as_it_is, **options), trained(module, budget, **options))
    assert module.logged == baseline.logged
    plans = [graph.plan for graph in compiled_of(budget.training_step).backend.history.graphs]
    assert len(plans) == 2, "a graph for each size: logging breaks none"
    assert len(plans[0].schedule) > len(plans[0].problem.ops)
    assert "training_step" not in vars(module), "the module has its own step back"
    assert "log" not in vars(module)


def test_the_model_optimizes_its_network() -> None:
    baseline, module = Watched(), Itself()
    module.load_state_dict(baseline.state_dict())
    module.budget = 0.7
    assert_same(trained(baseline), trained(module))
    plan = compiled_of(module.model).backend.history.graphs[0].plan
    assert len(plan.schedule) > len(plan.problem.ops)


class Measured(lightning_budget.Classifier):
    """Notes what forward and backward take in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: list[int] = []

    def optimizer_step(self, _epoch: int, _index: int, optimizer: Any, closure: Any = None) -> None:
        optimizer.zero_grad()
        self.peaks.append(fxremat.measure_peak(closure).peak_bytes)
        optimizer.step()


def test_the_budget_holds() -> None:
    baseline = Measured()
    module = copy.deepcopy(baseline)
    trainer().fit(baseline, lightning_budget.batches(3))
    # Of the first step Dynamo's and Lightning's own.
    nbytes = int(0.75 * max(baseline.peaks[1:]))
    trainer(MemoryBudget(nbytes, **QUICK)).fit(module, lightning_budget.batches(3))
    assert max(module.peaks[1:]) <= nbytes


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """With a budget to the same bits; what it saves is a checkpoint like any other."""
    begun = tmp_path / "begun.ckpt"
    loader = lightning_budget.batches(2)
    first = trainer()
    first.fit(lightning_budget.Classifier(), loader)
    first.save_checkpoint(begun)
    saved: list[dict[str, torch.Tensor]] = []
    for callbacks in ([], [MemoryBudget(0.75, **QUICK)]):
        torch.manual_seed(3)
        resumed = trainer(*callbacks, max_epochs=3)
        resumed.fit(lightning_budget.Classifier(), loader, ckpt_path=begun)
        resumed.save_checkpoint(tmp_path / "end.ckpt")
        saved.append(torch.load(tmp_path / "end.ckpt")["state_dict"])
    assert saved[0].keys() == saved[1].keys()
    assert_same(list(saved[0].values()), list(saved[1].values()))


class Manual(lightning_budget.Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[torch.Tensor], index: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, index))
        optimizer.step()


def test_manual_optimization_is_refused_with_the_way_out() -> None:
    with pytest.raises(fxremat.OptionError, match="configure_model"):
        trainer(MemoryBudget(0.75)).fit(Manual(), lightning_budget.batches(1))


def test_manual_optimization_of_an_optimized_network() -> None:
    baseline = Manual()
    module = copy.deepcopy(baseline)
    module.model = fxremat.optimize(module.model, budget=0.75, **QUICK)
    states: list[list[torch.Tensor]] = []
    for each in (baseline, module):
        torch.manual_seed(3)
        trainer().fit(each, lightning_budget.batches(3))
        states.append([*each.state_dict().values(), torch.get_rng_state()])
    assert_same(*states)


def test_a_module_that_was_optimized_itself_is_refused() -> None:
    optimized = fxremat.optimize(Net(), budget=1.0)
    with pytest.raises(fxremat.OptionError, match="as it was"):
        trainer(MemoryBudget(0.75)).fit(optimized, lightning_budget.batches(1))


def test_without_lightning_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fxremat.integrations.lightning"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(fxremat.MissingPackageError, match="pip install lightning"):
        importlib.import_module(name)
