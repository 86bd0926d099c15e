"""Steps of many graphs: each really breaks, trains in eager, and every status is told apart."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fxremat
from benchmarks import broken, records
from benchmarks.broken import check
from benchmarks.broken.__main__ import line, main, measured, refused
from benchmarks.measure import Step

Call = Callable[..., Tensor]
judge = functools.partial(check.check, broken.get("checked-blocks"), size="tiny")


def test_names_are_unique_and_causes_are_told() -> None:
    every = [step for family in broken.FAMILIES for step in family.STEPS]
    assert len({step.name for step in every}) == len(every) == len(broken.STEPS) >= 14
    assert all(step.cause and {"tiny", "bench"} <= set(step.sizes) for step in every)


@pytest.mark.parametrize("name", broken.STEPS)
def test_breaks_and_trains_in_eager(name: str) -> None:
    workload = broken.get(name).make("tiny")
    module = workload.step_module()
    step = Step(module, module)
    batch = check.prepared(workload, step, 0)
    loss = step.run(batch)
    assert check.is_finite(check.outcome(module, loss))
    step.clear()
    whole = torch.compile(module, backend="eager", fullgraph=True, dynamic=False)
    with pytest.raises((torch._dynamo.exc.Unsupported, torch._dynamo.exc.UserError)):
        whole(*batch)


def as_reference(module: nn.Module, _budget: check.Budget) -> Call:
    return check.as_graphs(module)


def test_the_reference_itself_is_ok_within_all_and_over_within_half() -> None:
    row = judge(1.0, optimize=as_reference)
    assert row["status"] == check.OK, row
    assert row["finite"]
    assert row["measured_peak_bytes"] == row["baseline_peak_bytes"] == row["budget_bytes"]
    assert row["graphs"] > 1
    assert row["graphs_by_step"][-check.MEASURED :] == [0] * check.MEASURED
    assert row["breaks"]
    assert {"eager_s", "reference_s", "fxremat_s"} <= set(row)
    assert judge(0.5, optimize=as_reference)["status"] == check.OVER


def test_other_gradients_are_wrong() -> None:
    def doubled(module: nn.Module, _budget: check.Budget) -> Call:
        def call(*batch: Tensor) -> Tensor:
            loss = module(*batch)
            return loss + (loss - loss.detach())

        return call

    row = judge(1.0, optimize=doubled)
    assert row["status"] == check.WRONG
    assert row["reason"].startswith("another step 1, gradient of")


def test_refusals_and_defects_are_told_apart() -> None:
    def refuses(_module: nn.Module, _budget: check.Budget) -> Call:
        raise fxremat.GraphBreakError('breaks at\n"/some/folder/of_mine/model.py", line 3')

    def fails(_module: nn.Module, _budget: check.Budget) -> Call:
        raise ZeroDivisionError("a defect")

    row = judge(0.6, optimize=refuses)
    assert row["status"] == check.REFUSED
    assert row["reason"] == 'GraphBreakError: breaks at "model.py", line 3'
    assert judge(0.6, optimize=fails)["status"] == check.CRASH


def test_a_floor_above_the_budget_takes_its_place() -> None:
    def floored(module: nn.Module, budget: check.Budget) -> Call:
        floor = 1 << 30
        if budget != floor:
            raise fxremat.BudgetInfeasible("", budget_bytes=1, floor_bytes=floor, holders=())
        return check.as_graphs(module)

    row = judge(0.1, optimize=floored)
    assert row["status"] == check.OK
    assert row["floor_bytes"] == row["budget_bytes"] == 1 << 30


def test_rows_are_kept_of_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--size", "tiny", "--out", str(tmp_path), "--budget", "0.9"]
    monkeypatch.setattr("sys.argv", ["broken", "printed-mean", *options])
    main()
    (row,) = records.load(tmp_path).values()
    assert row["name"] == "printed-mean"
    assert row["status"] in (check.OK, check.REFUSED)
    assert {"versions", "machine", "commit", "command"} <= set(row)
    assert "printed-mean: " in capsys.readouterr().out


def test_a_process_that_fails_has_a_row() -> None:
    row = measured("printed-mean", "0.6", "no such size")
    assert row["status"] == check.CRASH
    assert "printed-mean: crash" in line(row)


def test_models_of_a_sweep_that_are_no_whole_graph(tmp_path: Path) -> None:
    for key, outcome in {"torch/norms": "ok", "torch/volumes": "refused by Dynamo"}.items():
        records.append(tmp_path, {"key": key, "outcome": outcome})
    (name,) = refused(tmp_path)
    workload = broken.get(name).make("bench")
    step = Step(workload.model, workload.step_module())
    loss = step.run(check.prepared(workload, step, 0))
    assert check.is_finite(check.outcome(workload.model, loss))
    with pytest.raises(ValueError, match="no source 'nobody' of nobody/x"):
        broken.get("nobody/x")
