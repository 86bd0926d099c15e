"""The oracle on graphs small enough to check by hand."""

from __future__ import annotations

import pytest

from fxremat_solvers import (
    RematProblem,
    Schedule,
    ScheduleError,
    Value,
    baseline,
    check,
    plain_op,
    simulate,
)


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


def test_baseline_of_the_diamond():
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


def test_inputs_are_not_counted_and_an_empty_schedule_is_rejected():
    with pytest.raises(ScheduleError, match="never runs"):
        check(diamond(), ())
    assert simulate(diamond(), baseline(diamond())).peak_bytes < 100


def test_rejected_schedules_say_what_is_wrong():
    problem = diamond()
    with pytest.raises(ScheduleError, match=r"step 0 \(op 1, b\) reads value 1 \(a\)"):
        check(problem, (1, 0, 2, 3))
    with pytest.raises(ScheduleError, match="names op 9"):
        check(problem, (0, 9))
    once = RematProblem((plain_op("rand", (), (0,), 1.0, 0, False),), (Value("r", 1),), (), (0,))
    with pytest.raises(ScheduleError, match="not recomputable"):
        check(once, (0, 0))
