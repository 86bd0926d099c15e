"""The JSON formats: round trips, and errors that name the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from random_problems import problems

from fxremat_solvers import ProblemFormatError, RematProblem, Schedule
from fxremat_solvers.generate import chain


@given(problems())
@settings(max_examples=60, deadline=None)
def test_problem_round_trip(problem: RematProblem):
    assert RematProblem.from_json(problem.to_json()) == problem


def test_schedule_round_trip():
    schedule = Schedule((0, 1, 0, 2))
    assert Schedule.from_json(schedule.to_json()) == schedule


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("format",), "other/1", "format"),
        (("values", 1, "nbytes"), -1, r"values\[1\].nbytes"),
        (("values", 1, "nbytes"), 1.5, r"values\[1\].nbytes"),
        (("ops", 2, "cost"), "fast", r"ops\[2\].cost"),
        (("ops", 2, "cost"), float("nan"), r"ops\[2\].cost"),
        (("ops", 0, "inputs", 0), 99, r"ops\[0\].inputs\[0\]"),
        (("ops", 0, "inputs"), [4], r"ops\[0\].inputs\[0\]"),
        (("ops", 1, "outputs"), [1], r"ops\[1\].outputs\[0\]"),
        (("ops", 1, "recomputable"), "yes", r"ops\[1\].recomputable"),
        (("outputs",), [1, 1], "outputs"),
        (("first_backward_op",), 77, "first_backward_op"),
        (("values", 1, "nbytes"), 2**53, r"values.*2\*\*53"),
        (("ops", 0, "workspace_bytes"), 2**53, r"workspace_bytes.*2\*\*53"),
        (("ops", 2, "cost"), 10**400, r"ops\[2\].cost"),
        (("ops", 2, "cost"), 1e300, r"ops.*cost add up"),
        (("ops",), {}, "ops"),
    ],
)
def test_errors_name_the_field(path: tuple[str | int, ...], value: object, field: str):
    document: Any = json.loads(chain(3).to_json())
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(ProblemFormatError, match=field):
        RematProblem.from_json(json.dumps(document))


def test_missing_fields_and_broken_text():
    with pytest.raises(ProblemFormatError, match="not a JSON document"):
        RematProblem.from_json("{")
    for text in ("[" * 200_000, '{"format": 1' + "0" * 5000 + "}"):
        with pytest.raises(ProblemFormatError, match="not a JSON document"):
            RematProblem.from_json(text)
    with pytest.raises(ProblemFormatError, match="values is missing"):
        RematProblem.from_json('{"format": "fxremat-problem/1"}')
    with pytest.raises(ProblemFormatError, match="ops"):
        Schedule.from_json('{"format": "fxremat-schedule/1"}')
