"""The command: answers in text and as JSON, exit codes, errors in one line."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from fxremat.cache import store
from fxremat.cli.main import main

FACTORY = "tests.fxremat.report.models:factory"
Capture = pytest.CaptureFixture[str]


def answer(capsys: Capture, *arguments: str) -> tuple[int, Any]:
    """The exit code and the object of a command with --json."""
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "problem.json"
    assert main(["export", FACTORY, "--out", str(path), "--cost", "roofline"]) == 0
    return path


def test_solve_and_check_and_pareto(problem: Path, capsys: Capture, tmp_path: Path) -> None:
    schedule = tmp_path / "schedule.json"
    arguments = (str(problem), "--solver", "greedy")
    code, found = answer(capsys, "solve", *arguments, "--budget", "0.6", "--out", str(schedule))
    assert code == 0
    assert found["peak_bytes"] <= found["budget_bytes"]
    assert found["recomputed_ops"] > 0
    traced = ("solve", str(problem), "--budget", "0.6", "--preset", "brief", "--trace", "--json")
    assert main(traced) == 0
    said = capsys.readouterr()
    assert "greedy" in said.err
    assert json.loads(said.out)["cost"] <= found["cost"]
    code, replayed = answer(capsys, "check", str(problem), str(schedule), "--budget", "0.6")
    assert (code, replayed["peak_bytes"], replayed["over_budget_bytes"]) == (
        0,
        found["peak_bytes"],
        0,
    )
    code, replayed = answer(capsys, "check", str(problem), str(schedule), "--budget", "1B")
    assert (code, replayed["over_budget_bytes"]) == (1, found["peak_bytes"] - 1)
    code, front = answer(capsys, "pareto", *arguments, "--points", "2", "--time-limit-s", "2")
    assert code == 0
    assert len(front["points"]) >= 2
    code, found = answer(capsys, "solve", *arguments, "--budget", "1B", "--time-limit-s", "1")
    assert (code, found["status"]) == (1, "infeasible")


def test_a_schedule_that_cant_run_is_rejected(
    problem: Path, capsys: Capture, tmp_path: Path
) -> None:
    schedule = tmp_path / "schedule.json"
    schedule.write_text('{"format": "fxremat-schedule/1", "ops": [0]}')
    code, found = answer(capsys, "check", str(problem), str(schedule))
    assert (code, found["runs"]) == (1, False)


def test_explain_and_export(capsys: Capture, tmp_path: Path) -> None:
    page, trace = tmp_path / "plan.html", tmp_path / "trace.json"
    plan = ("--budget", "0.6", "--cost", "roofline")
    code, found = answer(capsys, "explain", FACTORY, *plan, "--html", str(page))
    assert code == 0
    assert found["planned_peak_bytes"] <= found["budget_bytes"]
    assert page.read_text().startswith("<!doctype html>")
    assert main(["explain", FACTORY, *plan]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100
    code, _ = answer(capsys, "export", FACTORY, "--what", "trace", *plan, "--out", str(trace))
    assert code == 0
    assert json.loads(trace.read_text())["traceEvents"]


def test_bench_measures(capsys: Capture) -> None:
    arguments = ("bench", FACTORY, "--budgets", "0.7", "--steps", "1", "--cost", "roofline")
    code, found = answer(capsys, *arguments)
    assert code == 0
    plain, planned = found["rows"]
    assert planned["peak_bytes"] == planned["planned_bytes"] <= planned["budget_bytes"]
    assert planned["peak_bytes"] < plain["peak_bytes"]


def test_bench_plans_steps_of_several_graphs(capsys: Capture) -> None:
    arguments = ("bench", "tests.fxremat.cli.factories:breaks", "--budgets", "1.0", "--steps", "1")
    code, found = answer(capsys, *arguments)
    assert code == 0
    planned = found["rows"][1]
    assert 0 < planned["planned_bytes"] <= planned["budget_bytes"]


def test_the_cache_is_shown_and_cleared(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(capsys, "cache") == (0, {"folder": None})
    monkeypatch.setenv("FXREMAT_CACHE", str(tmp_path))
    store.write("plans", "a", b"{}")
    assert answer(capsys, "cache")[1]["plans"] == 1
    assert answer(capsys, "cache", "clear")[1]["removed"] == 1
    assert answer(capsys, "cache")[1]["plans"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("explain", FACTORY, "--budget", "1B"), 1, "BudgetInfeasible"),
        (("explain", FACTORY, "--budget", "much"), 2, "BudgetError"),
        (("explain", "nowhere:factory", "--budget", "0.5"), 2, "OptionError"),
        (("explain", "torch:factory", "--budget", "0.5"), 2, "OptionError"),
        (("explain", "torch", "--budget", "0.5"), 2, "OptionError"),
        (("explain", "os:getcwd", "--budget", "0.5"), 2, "OptionError"),
        (("export", FACTORY, "--what", "trace", "--out", "x"), 2, "OptionError"),
        (
            ("explain", "tests.fxremat.report.models:nothing_trained", "--budget", "0.5"),
            2,
            "OptionError",
        ),
        (("solve", "nowhere.json", "--budget", "0.5"), 2, "FileNotFoundError"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], code: int, error: str, capsys: Capture
) -> None:
    assert main([*arguments, "--json"]) == code
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("fxremat: ")
    assert json.loads(said.out)["error"] == error


def test_a_break_is_said_with_its_place(capsys: Capture) -> None:
    for command in (("explain", "--budget", "0.5"), ("estimate", "--device", "l4")):
        assert main([command[0], "tests.fxremat.cli.factories:breaks", *command[1:]]) == 1
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert re.search(r"one graph.*data-dependent.*\(factories\.py:\d+\)$", said)
        assert "fullgraph" not in said


def test_a_factory_that_fails_has_its_traceback(capsys: Capture) -> None:
    for command in ("explain", "estimate"):
        budget = ("--budget", "0.5", "--json")
        assert main([command, "tests.fxremat.cli.factories:fails", *budget]) == 3
        said = capsys.readouterr()
        assert 'factories.py", line' in said.err
        assert json.loads(said.out) == {"error": "ValueError", "message": "no data here"}
        assert main([command, "tests.fxremat.cli.factories:NUMBER", *budget]) == 2
        assert "name a function" in capsys.readouterr().err


def test_a_reader_may_leave(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        assert main(["cache", "--json"]) == 0
    assert capfd.readouterr().err == ""


def test_bad_usage_is_two() -> None:
    with pytest.raises(SystemExit) as left:
        main(["solve"])
    assert left.value.code == 2


def test_help_names_all_commands(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    for name in (
        "estimate",
        "devices",
        "explain",
        "export",
        "bench",
        "solve",
        "check",
        "pareto",
        "cache",
    ):
        assert f"\n    {name} " in said
    assert "exit codes" in said
