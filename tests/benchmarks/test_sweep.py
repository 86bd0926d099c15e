"""The sweep over many models: each way that a model can come out, on made-up ones."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from torch import Tensor, nn

from benchmarks import records
from benchmarks.measure import Step
from benchmarks.sweep import outcomes, table
from benchmarks.sweep.check import Planned, check, optimized
from benchmarks.sweep.run import sweep
from benchmarks.zoo import Batch
from tests.benchmarks import made_up_models

SOURCE = {"made-up": "tests.benchmarks.made_up_models"}
PRELOAD = "benchmarks.sweep.one"


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("plain", outcomes.OK),
        ("breaks", outcomes.REFUSED_BY_DYNAMO),
        ("chooses", outcomes.REFUSED),
        ("untraceable", outcomes.FAILS_IN_TORCH),
        ("not-finite", outcomes.NOT_BUILT),
        ("missing", outcomes.NOT_BUILT),
    ],
)
def test_outcomes(name: str, outcome: str) -> None:
    row = check(functools.partial(made_up_models.make, name))
    assert row["outcome"] == outcome, row
    if outcome == outcomes.OK:
        assert row["reference"] == "eager"
        assert row["measured_bytes"] <= row["planned_bytes"] <= row["budget_bytes"]
        assert row["floor_bytes"] <= row["budget_bytes"]
        assert row["recomputed"] > 0
    else:
        assert row["reason"]


def test_bits_of_the_traced_graph() -> None:
    row = check(functools.partial(made_up_models.make, "interpolated"))
    assert row["outcome"] == outcomes.OK, row
    if row["reference"] != "eager":
        assert row["reference"] == "AOTAutograd"
        assert row["aotautograd_against_eager"] > 0


def wrong(module: nn.Module, batch: Batch) -> Planned:
    """A step whose gradients are twice as large."""
    found = optimized(module, batch)

    def call(*args: Tensor) -> Tensor:
        loss = found.step.call(*args)
        return loss + (loss - loss.detach())

    return replace(found, step=Step(module, call))


def over(module: nn.Module, batch: Batch) -> Planned:
    """A step that needs more than its plan says."""
    return replace(optimized(module, batch), planned=1)


def fails(_module: nn.Module, _batch: Batch) -> Planned:
    raise ZeroDivisionError("a defect")


def test_what_fxremat_must_never_do_is_seen() -> None:
    make = functools.partial(made_up_models.make, "plain")
    assert check(make, wrong)["outcome"] == outcomes.WRONG
    assert check(make, over)["outcome"] == outcomes.OVER
    row = check(make, fails)
    assert row["outcome"] == outcomes.CRASH
    assert row["reason"] == "ZeroDivisionError: a defect"


def test_processes_that_die_or_hang_have_rows_and_the_sweep_goes_on(tmp_path: Path) -> None:
    console = Console(quiet=True)
    go = functools.partial(sweep, out=tmp_path, console=console, known=SOURCE, preload=PRELOAD)
    go(["*/dies"], limit_s=60)
    go(["*/d*", "*/hangs"], limit_s=0.5)
    rows = records.load(tmp_path)
    assert rows["made-up/dies"]["outcome"] == outcomes.CRASH
    assert rows["made-up/dies"]["command"].startswith("python -m benchmarks")
    assert rows["made-up/hangs"]["outcome"] == outcomes.SLOW
    assert len((tmp_path / records.FILE).read_text().splitlines()) == 2


def test_table(tmp_path: Path) -> None:
    common = {"commit": "0123456789", "date": "2026-01-02 03:04", **records.environment(1)}
    ok = {
        **common,
        "outcome": outcomes.OK,
        "measured_bytes": 9,
        "planned_bytes": 10,
        "budget_bytes": 10,
        "floor_bytes": 10,
        "recomputed": 1,
        "planning_s": 0.5,
    }
    rows = [
        {**ok, "key": "here/a", "reference": "eager"},
        {
            **ok,
            "key": "there/b",
            "reference": "AOTAutograd",
            "against_eager": {"rng_equal": True},
        },
        {**common, "key": "here/c", "outcome": outcomes.REFUSED, "reason": "a | `b`"},
        {**common, "key": "here/d", "outcome": outcomes.NOT_BUILT, "reason": "no"},
    ]
    (tmp_path / records.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = table.text(list(records.load(tmp_path).values()))
    assert "| ok, eager's bits | 1 |  | 1 |" in text
    assert "| **all that were built** | 2 | 1 | 3 |" in text
    assert "- here/c: a / 'b'" in text
    assert "0123456" in text
