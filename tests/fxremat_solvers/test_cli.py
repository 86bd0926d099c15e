"""The command, run in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fxremat_solvers import Schedule, simulate
from fxremat_solvers.cli import main
from fxremat_solvers.testing import chain

KEYS = {
    "cost",
    "baseline_cost",
    "peak_bytes",
    "lower_bound",
    "status",
    "solver",
    "seconds",
    "recomputed_ops",
}


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    path = tmp_path / "problem.json"
    path.write_text(chain(10).to_json())
    return path


def test_check_accepts_what_solve_writes(
    problem_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "schedule.json"
    assert main(["solve", str(problem_file), "--budget-bytes", "6", "--out", str(out)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == KEYS
    replay = simulate(chain(10), Schedule.from_json(out.read_text()))
    assert (answer["cost"], answer["peak_bytes"]) == (replay.cost, replay.peak_bytes)
    assert main(["check", str(problem_file), str(out), "--budget-bytes", "6"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["recomputed_ops"] == answer["recomputed_ops"]
    assert main(["check", str(problem_file), str(out), "--budget-bytes", "5"]) == 1


def test_a_budget_below_every_op_is_infeasible(
    problem_file: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["solve", str(problem_file), "--budget-bytes", "1"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "infeasible"
    assert answer["lower_bound"] is None


def test_pareto_prints_its_points(problem_file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["pareto", str(problem_file), "--points", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["points"]) >= 2
    assert set(document["points"][0]) == KEYS - {"seconds"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not a JSON document"),
        (
            '{"format": "fxremat-problem/1", "values": [{"name": "v"}]}',
            "$.values[0]: object missing required field `nbytes`",
        ),
    ],
)
def test_a_malformed_file_is_told_its_fault(
    text: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert main(["solve", str(path), "--budget-bytes", "5"]) == 2
    captured = capsys.readouterr()
    assert named in captured.err
    assert not captured.out


def test_what_cannot_be_asked_for_ends_with_a_code_and_a_reason(
    problem_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["solve", str(tmp_path / "none.json"), "--budget-bytes", "5"]) == 2
    assert main(["solve", str(problem_file), "--budget-bytes", "0"]) == 2
    assert main(["solve", str(problem_file), "--budget-bytes", "5", "--solver", "x"]) == 2
    assert main(["solve", str(problem_file), "--budget-bytes", "5", "--time-limit-s", "nan"]) == 2
    assert main(["pareto", str(problem_file), "--points", "1"]) == 2
    for out in (tmp_path, tmp_path / "no" / "schedule.json"):
        capsys.readouterr()
        assert main(["solve", str(problem_file), "--budget-bytes", "5", "--out", str(out)]) == 2
        assert str(out) in capsys.readouterr().err
    schedule = tmp_path / "schedule.json"
    schedule.write_text('{"format": "fxremat-schedule/1", "ops": [3]}')
    assert main(["check", str(problem_file), str(schedule)]) == 1
    assert "reads value" in capsys.readouterr().err
