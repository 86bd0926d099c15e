"""The oracle on graphs small enough to check by hand."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import (
    Op,
    RematProblem,
    Rerun,
    Schedule,
    ScheduleError,
    Value,
    baseline,
    check,
    live_after,
    live_at,
    plain_op,
    simulate,
)
from tests.fxremat_solvers.random_problems import random_reruns, with_reruns


def diamond() -> RematProblem:
    """``x -> a(4) -> b(2) -> d(1)``, and ``a -> c(3) -> d``: x is an input, d the output."""
    values = (Value("x", 100), Value("a", 4), Value("b", 2), Value("c", 3), Value("d", 1))
    ops = (
        plain_op("a", (0,), (1,), 10.0),
        plain_op("b", (1,), (2,), 1.0),
        plain_op("c", (1,), (3,), 2.0),
        plain_op("d", (2, 3), (4,), 1.0),
    )
    return RematProblem(ops, values, (0,), (4,))


def test_a_value_dies_after_its_last_reader():
    """
    step   live while it runs      bytes
    a      a                       4
    b      a b                     6
    c      a b c                   9    a dies
    d      b c d                   6    b, c die; d is an output and stays
    """
    replay = simulate(diamond(), baseline(diamond()))
    assert replay.running_bytes == (4, 6, 9, 6)
    assert replay.resident_bytes == (4, 6, 5, 1)
    assert replay.dies == ((), (), (1,), (2, 3))
    assert (replay.peak_bytes, replay.peak_step, replay.cost) == (9, 2, 14.0)


def test_a_value_dies_before_it_is_computed_again():
    """
    a c a b d: the first `a` dies after c, the second after b.

    step   live        bytes
    a      a           4
    c      a c         7    a dies
    a      a c         7
    b      a b c       9    a dies
    d      b c d       6
    """
    replay = simulate(diamond(), Schedule((0, 2, 0, 1, 3)))
    assert replay.running_bytes == (4, 7, 7, 9, 6)
    assert replay.cost == 24.0


def test_recomputing_a_live_value_does_not_count_it_twice():
    """a b a c d: the `a` of step 0 is read last by b, so it is gone when step 2 makes it again."""
    replay = simulate(diamond(), Schedule((0, 1, 0, 2, 3)))
    assert replay.running_bytes == (4, 6, 6, 9, 6)


def test_dead_outputs_and_workspace_count_while_the_op_runs():
    """One op makes two values of 5 and 7 bytes that nobody reads, with 11 bytes of workspace."""
    values = (Value("p", 5), Value("q", 7))
    problem = RematProblem((plain_op("only", (), (0, 1), 1.0, 11),), values, (), (0,))
    replay = simulate(problem, (0,))
    assert replay.running_bytes == (23,)
    assert replay.resident_bytes == (5,)


def test_inputs_are_not_counted():
    assert simulate(diamond(), baseline(diamond())).peak_bytes < diamond().values[0].nbytes


def test_schedules_that_cannot_run_are_refused_with_what_is_wrong():
    problem = diamond()
    with pytest.raises(ScheduleError, match=r"step 0 \(op 1, b\) reads value 1 \(a\)"):
        check(problem, (1, 0, 2, 3))
    with pytest.raises(ScheduleError, match="names op 9"):
        check(problem, (0, 9))
    with pytest.raises(ScheduleError, match="never runs"):
        check(problem, ())


def test_an_op_without_reruns_runs_once():
    once = RematProblem((plain_op("rand", (), (0,), 1.0, 0, False),), (Value("r", 1),), (), (0,))
    check(once, (0,))
    with pytest.raises(ScheduleError, match="not recomputable"):
        check(once, (0, 0))


# ---- reruns that differ from the first run


def random_op() -> RematProblem:
    """A random op of 5 bytes and a state of 3, and two readers of what it makes."""
    values = (Value("y", 5), Value("state", 3, lazy=True), Value("a", 1), Value("b", 1))
    ops = (
        Op("draw", (), (0, 1), 2.0, 1, (Rerun((1,), (0,), 4.0, 3),)),
        Op("a", (0,), (2,), 1.0),
        Op("b", (0, 2), (3,), 1.0),
    )
    return RematProblem(ops, values, (), (3,))


def test_a_state_that_no_rerun_reads_takes_nothing():
    replay = simulate(random_op(), (0, 1, 2))
    assert replay.running_bytes == (6, 6, 7)
    assert replay.dies == ((), (), (0, 2))
    assert replay.cost == 4.0


def test_a_rerun_reads_the_state_and_has_a_cost_and_a_workspace_of_its_own():
    """
    draw   y state, workspace 1   9
    a      y state a              9    y dies
    draw   state a y, 3           12   state dies
    b      a y b                  7
    """
    replay = simulate(random_op(), (0, 1, 0, 2))
    assert replay.running_bytes == (9, 9, 12, 7)
    assert replay.dies[2] == (1,)
    assert replay.cost == 2.0 + 1.0 + 4.0 + 1.0


def test_a_lazy_value_that_is_made_again_unread_takes_nothing_either():
    values = (Value("lazy", 7, lazy=True), Value("end", 1))
    ops = (Op("make", (), (0,), 1.0, 0, (Rerun((), (0,), 1.0),)), Op("read", (0,), (1,), 1.0))
    problem = RematProblem(ops, values, (), (1,))
    assert simulate(problem, (0, 0, 1)).running_bytes == (0, 7, 8)


def test_what_only_the_first_run_makes_stays():
    values = (Value("y", 5), Value("statistics", 2), Value("end", 1))
    ops = (
        Op("norm", (), (0, 1), 1.0, 0, (Rerun((), (0,), 1.0),)),
        Op("read", (0,), (2,), 1.0),
    )
    problem = RematProblem(ops, values, (), (1, 2))
    assert simulate(problem, (0, 0, 1)).running_bytes == (7, 7, 8)
    assert simulate(problem, (0, 0, 1)).dies == ((0,), (), (0,))


# ---- what is live


def test_values_live_at_a_step_are_named_largest_first():
    """While c runs a, c and b are live; a ends with it."""
    replay = simulate(diamond(), baseline(diamond()))
    assert live_at(diamond(), replay, 2) == [1, 3, 2]
    assert live_after(diamond(), replay, 2) == {2, 3}
    assert live_after(diamond(), replay, 3) == {4}, "the output stays"


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_live_values_are_all_that_memory_counts(seed: int, n_ops: int):
    problem = random_reruns(seed, n_ops)
    replay = simulate(problem, with_reruns(problem, seed))

    def nbytes(values: Iterable[int]) -> int:
        return sum(problem.values[value].nbytes for value in values)

    for step, run in enumerate(replay.runs):
        held = live_at(problem, replay, step)
        assert nbytes(held) + run.workspace_bytes == replay.running_bytes[step]
        assert nbytes(live_after(problem, replay, step)) == replay.resident_bytes[step]
        assert all(problem.values[value].nbytes for value in held)
