"""Files that are broken in any way: read, or refused with a typed error that names the place.

Documents of both versions and of schedules are damaged at random: a value is put in another's
place, a field goes, is doubled or comes, the text is cut or has other bytes in it.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import (
    ProblemFormatError,
    RematProblem,
    Schedule,
    ScheduleError,
    simulate,
    solve,
)
from tests.fxremat_solvers.random_problems import random_reruns
from tests.fxremat_solvers.small_graphs import OLD_DOCUMENT

PROBLEM = random_reruns(5, 8)
DOCUMENTS = (json.loads(PROBLEM.to_json()), OLD_DOCUMENT)
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2,
    2**53,
    2**70,
    -(2**70),
    1.5,
    1e308,
    -0.0,
    "",
    "nan",
    "\ud800",
    [],
    {},
    [[]],
    [0, 0],
    {"inputs": 3},
)
PLACE = re.compile(r"\$|ops|values|inputs|outputs|first_backward_op|not a JSON document")


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that is in a document."""
    found = [path] if path else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items if isinstance(tree, (dict, list)) else ():
        found += places(value, (*path, key)) if isinstance(value, (dict, list)) else [(*path, key)]
    return found


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The text of a document that was valid."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(places(document)))
        holder = document
        for key in where[:-1]:
            holder = holder[key]
        what = draw(st.sampled_from(("put", "drop", "double", "add")))
        if what == "put":
            holder[where[-1]] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif what == "drop":
            del holder[where[-1]]
        elif isinstance(holder, list):
            holder.insert(where[-1], copy.deepcopy(holder[where[-1]]))
        elif what == "add":
            holder["surplus"] = copy.deepcopy(draw(st.sampled_from(ODD)))
        if not document:
            break
    text = json.dumps(document)
    if draw(st.booleans()):
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(st.sampled_from(("", "}", "\x00", '"', "[" * 2000, "é")))
    return text


@settings(max_examples=300, derandomize=True, deadline=None)
@given(damaged())
def test_a_damaged_problem_is_refused_with_its_place_or_can_be_solved(text: str) -> None:
    problem, refused = None, ""
    try:
        problem = RematProblem.from_json(text)
    except ProblemFormatError as error:
        refused = str(error)
    assert problem or PLACE.search(refused)
    if problem and all(len(op.reruns) < 2 for op in problem.ops):
        budget = 1 + sum(value.nbytes for value in problem.values)
        solution = solve(problem, budget, solver="greedy")
        assert simulate(problem, solution.schedule).peak_bytes == solution.peak_bytes


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_document_are_refused(raw: bytes) -> None:
    text = raw.decode(errors="surrogateescape")
    for parse in (RematProblem.from_json, Schedule.from_json):
        with pytest.raises(ProblemFormatError):
            parse(text)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.integers(-2, len(PROBLEM.ops) + 2), max_size=20))
def test_a_schedule_that_cant_be_executed_is_refused(ops: list[int]) -> None:
    schedule = Schedule.from_json(Schedule(tuple(ops)).to_json())
    simulation, refused = None, ""
    try:
        simulation = simulate(PROBLEM, schedule)
    except ScheduleError as error:
        refused = str(error)
    assert set(ops) == set(range(len(PROBLEM.ops))) if simulation else "op" in refused
