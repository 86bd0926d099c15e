"""The JSON formats: round trips, and errors that name the field."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import (
    Op,
    ProblemFormatError,
    RematProblem,
    Rerun,
    Schedule,
    Value,
    simulate,
)
from fxremat_solvers.testing import chain
from tests.fxremat_solvers.random_problems import random_reruns
from tests.fxremat_solvers.small_graphs import OLD_DOCUMENT


@given(st.integers(0, 10**6), st.integers(1, 30))
@settings(max_examples=120, deadline=None)
def test_a_problem_read_back_is_the_same(seed: int, n_ops: int):
    problem = random_reruns(seed, n_ops)
    assert RematProblem.from_json(problem.to_json()) == problem


def test_no_field_is_lost_on_the_way():
    """What a field says by default is read back even where it isn't written: none is at that."""
    again = Rerun((0, 1), (2,), 5.0, 7)
    op = Op("op", (0,), (1, 2), 3.0, 4, (again,))
    values = (Value("in", 1), Value("state", 2, lazy=True), Value("out", 3))
    problem = RematProblem((op,), values, inputs=(0,), outputs=(2,), first_backward_op=1)
    for each in (problem, op, again, values[1]):
        at_default = [f.name for f in fields(each) if getattr(each, f.name) == f.default]
        assert not at_default, "set it above"
    assert RematProblem.from_json(problem.to_json()) == problem


def test_the_documented_example_takes_a_state_only_where_it_reruns():
    text = (Path(__file__).parents[3] / "docs" / "solvers.md").read_text()
    example = text.split("```json")[1].split("```")[0]
    problem = RematProblem.from_json(example)
    assert simulate(problem, (0, 1)).peak_bytes == 4096 + 4
    assert simulate(problem, (0, 0, 1)).peak_bytes == 4096 + 2 * 5056


def test_version_1_is_read_as_ops_that_run_again_as_they_ran_first():
    old = {**OLD_DOCUMENT, "first_backward_op": None}
    problem = RematProblem.from_json(json.dumps(old))
    assert problem.ops[0] == Op("a", (), (0,), 1.0, 2, (Rerun((), (0,), 1.0, 2),))
    assert problem.ops[1] == Op("b", (0,), (1,), 2.0)
    assert json.loads(problem.to_json())["format"] == "fxremat-problem/2"
    old["format"] = "fxremat-problem/3"
    with pytest.raises(ProblemFormatError, match="'fxremat-problem/2' or 'fxremat-problem/1'"):
        RematProblem.from_json(json.dumps(old))


def test_a_schedule_read_back_is_the_same():
    schedule = Schedule((0, 1, 0, 2))
    assert Schedule.from_json(schedule.to_json()) == schedule


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("format",), "other/1", "format"),
        (("values", 1, "nbytes"), -1, r"values\[1\].nbytes"),
        (("values", 1, "nbytes"), 1.5, r"values\[1\].nbytes"),
        (("ops", 2, "cost"), "fast", r"ops\[2\].cost"),
        (("ops", 2, "cost"), float("nan"), "not a JSON document"),
        (("ops", 0, "inputs", 0), 99, r"ops\[0\].inputs\[0\]"),
        (("ops", 0, "inputs"), [4], r"ops\[0\].inputs\[0\]"),
        (("ops", 1, "outputs"), [1], r"ops\[1\].outputs\[0\]"),
        (("ops", 1, "recomputable"), True, r"ops\[1\]: object contains unknown .*recomputable"),
        (("ops", 1, "reruns"), [{}], r"\$.ops\[1\].reruns\[0\]: .*`inputs`"),
        (("ops", 1, "reruns", 0, "cost"), "x", r"\$.ops\[1\].reruns\[0\].cost: expected"),
        (("ops", 1, "reruns", 0, "cost"), -1, r"\$.ops\[1\].reruns\[0\].cost is -1"),
        (("ops", 1, "reruns", 0, "inputs"), [3], r"\$.ops\[1\].reruns\[0\].inputs\[0\]"),
        (("ops", 1, "reruns", 0, "inputs"), [2], r"\$.ops\[1\].reruns\[0\].inputs: .*makes"),
        (("ops", 1, "reruns", 0, "outputs"), [1], r"\$.ops\[1\].reruns\[0\].outputs\[0\]"),
        (("values", 1, "lazy"), 1, r"values\[1\].lazy"),
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


def test_broken_text_and_missing_fields_are_refused():
    with pytest.raises(ProblemFormatError, match="not a JSON document"):
        RematProblem.from_json("{")
    for text in ("[" * 200_000, '{"format": ' + "[" * 200_000, '{"format": 1' + "0" * 5000 + "}"):
        with pytest.raises(ProblemFormatError):
            RematProblem.from_json(text)
    with pytest.raises(ProblemFormatError, match=r"\$: .*missing .*`values`"):
        RematProblem.from_json('{"format": "fxremat-problem/1"}')
    with pytest.raises(ProblemFormatError, match="ops"):
        Schedule.from_json('{"format": "fxremat-schedule/1"}')
