"""The harness end to end on a tiny model: rows, reasons, resuming, the report."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
import torch._functorch.config
from rich.console import Console

from benchmarks import methods, records, report, suites, zoo
from benchmarks.__main__ import cells_of, main, parser
from benchmarks.cell import Cell, run
from benchmarks.runner import Limits
from benchmarks.runner import run as run_all

EFFORT = {"rounds": 4, "compare_steps": 2, "timing_limit_s": 5, "timeline": True, "batch_tries": 6}


def tiny(method: str, point: str = "", model: str = "mlp-gelu", kind: str = "step") -> Cell:
    return Cell(model, method, point, kind, size="tiny")


@pytest.mark.parametrize(
    ("method", "model"),
    [
        ("aot_default", "gpt2-eager"),
        ("checkpoint-block", "gpt2-eager"),
        pytest.param("checkpoint-second", "t5", marks=pytest.mark.slow),
        pytest.param("checkpoint-sqrt", "t5", marks=pytest.mark.slow),
        ("selective", "gpt2-eager"),
        ("selective-alternate", "gpt2-eager"),
        ("checkpoint-block", "lstm64"),
    ],
)
def test_methods_that_leave_gradients_as_they_are(method: str, model: str) -> None:
    row = run(tiny(method, model=model), {**EFFORT, "rounds": 0})
    assert row["status"] == "ok", row
    assert row["verdict"] == "bitwise"
    assert row["peak_bytes"] > row["saved_bytes"] > 0


def test_what_cannot_be_done_is_a_row_with_the_reason() -> None:
    row = run(tiny("checkpoint-second", model="ode48"), EFFORT)
    assert row["status"] == "unavailable"
    assert "time step" in row["reason"]
    row = run(tiny("checkpoint-sqrt", model="unet"), EFFORT)
    assert row["status"] == "unavailable"
    assert "skip" in row["reason"]


def test_clipped_gradients() -> None:
    row = run(tiny("checkpoint-block", kind="clip"), EFFORT)
    assert row["status"] == "ok", row


def test_largest_batch() -> None:
    """The room is the measured peak at a batch of 16, so 16 fits and little more does."""
    at_16 = Cell("mlp-gelu", "eager", size="tiny", numbers={"batch": 16})
    peak = run(at_16, {**EFFORT, "rounds": 0})["peak_bytes"]
    cell = Cell("mlp-gelu", "eager", "", "batch", "tiny", {"batch": 4}, budget_bytes=peak)
    row = run(cell, EFFORT)
    assert row["status"] == "ok", row
    assert row["largest_batch"] == 16


def test_run_resume_and_report(tmp_path: Path) -> None:
    cells = [
        tiny("eager"),
        tiny("fxremat", "=eager"),
        tiny("fxremat", "=inductor"),
        Cell("mlp-gelu", "eager", size="huge"),
    ]
    console = Console(file=io.StringIO())
    run_all(cells, tmp_path, EFFORT, Limits(time_s=120, jobs=2), console)
    rows = records.load(tmp_path)
    assert [rows[c.key]["status"] for c in cells] == ["ok"] * 2 + ["unavailable", "failed"]
    assert "huge" in rows[cells[-1].key]["reason"]
    ours = rows[cells[1].key]
    assert ours["budget_bytes"] == rows[cells[0].key]["peak_bytes"]
    assert ours["peak_bytes"] <= ours["budget_bytes"]

    before = (tmp_path / records.FILE).read_text()
    run_all(cells, tmp_path, EFFORT, Limits(time_s=120), console)
    assert (tmp_path / records.FILE).read_text() == before

    written = report.write(tmp_path)
    text = written[0].read_text()
    assert "| mlp-gelu | =eager |" in text
    assert all(path.stat().st_size > 0 for path in written)

    page = tmp_path / "page.md"
    page.write_text(f"above\n{report.BEGIN}\nstale\n{report.END}\nbelow\n")
    report.write_into(page, tmp_path)
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("\nbelow\n")
    assert "stale" not in text
    assert "mlp-gelu, fxremat =eager" in text


def test_a_row_cut_off_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    records.append(tmp_path, {"key": "a", "status": "ok"})
    with (tmp_path / records.FILE).open("a") as file:
        file.write('{"key": "b", "sta')
    assert list(records.load(tmp_path)) == ["a"]
    records.append(tmp_path, {"key": "c", "status": "ok"})
    assert list(records.load(tmp_path)) == ["a", "c"]


def test_time_limit(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    run_all([tiny("eager")], tmp_path, EFFORT, Limits(time_s=0.01), console)
    (row,) = records.load(tmp_path).values()
    assert row["status"] == "failed"
    assert "time limit" in row["reason"]


def test_dropout_drawn_anew_is_wrong_whatever_else_draws_it_so() -> None:
    """The graph that a compiled method may equal instead of eager recomputes nothing."""
    # The method sets torch's option for its process.
    with torch._functorch.config.patch(activation_memory_budget=1.0):
        row = run(tiny("torch-budget", "0", model="gpt2-eager"), {**EFFORT, "rounds": 0})
    assert row["verdict"] == "wrong", row
    assert not row["equals_aot_eager"]


def test_suites_name_what_there_is() -> None:
    for cell in [*suites.quick(), *suites.full(), *suites.full("cuda")]:
        assert cell.model in zoo.CASES
        assert cell.method in methods.METHODS
    keys = [cell.key for cell in suites.full()]
    assert len(keys) == len(set(keys))


def test_a_method_named_for_a_variant_is_run() -> None:
    words = ["run", "--models", "bert-sdpa", "--methods", "inductor"]
    (cell,) = cells_of(parser().parse_args(words))
    assert (cell.model, cell.method) == ("bert-sdpa", "inductor")
    assert cell.key not in {other.key for other in suites.full()}


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "list"])
    assert main() == 0
    listed = capsys.readouterr().out
    assert "gpt2-eager" in listed
    assert "torch-budget" in listed
    monkeypatch.setattr("sys.argv", ["benchmarks", "run", "--models", "gpt9"])
    assert main() == 2
    assert "gpt2-eager" in capsys.readouterr().out
