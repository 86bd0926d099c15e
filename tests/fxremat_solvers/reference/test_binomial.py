"""Binomial schedules: Griewank and Walther's figures, and optimality by brute force."""

from __future__ import annotations

import dataclasses

import pytest

from fxremat_solvers import RematProblem, simulate
from fxremat_solvers.reference.binomial import binomial_schedule, extra_advances, recognise
from fxremat_solvers.reference.exact import exact
from tests.fxremat_solvers.random_problems import random_problem
from tests.fxremat_solvers.small_graphs import block_stack, time_stepping


@pytest.mark.parametrize(
    ("n", "slots", "advances"),
    [
        (1, 1, 0),
        (4, 1, 6),
        (100, 1, 4950),
        (10, 2, 20),
        (100, 2, 845),
        (10, 3, 15),
        (100, 3, 490),
        (35, 4, 84),
        (100, 4, 374),
        (100, 5, 316),
        (100, 6, 280),
        (1000, 5, 6284),
        (1000, 10, 3636),
        (1000, 20, 2747),
        (10_000, 10, 57_624),
        (100_000, 10, 832_040),
        (1_000_000, 100, 3_817_896),
    ],
)
def test_closed_form_has_the_published_values(n: int, slots: int, advances: int) -> None:
    assert extra_advances(n, slots) == advances


def test_closed_form_solves_the_recurrence() -> None:
    table = {(1, s): 0 for s in range(1, 8)}
    for n in range(2, 41):
        table[n, 1] = n * (n - 1) // 2
        for s in range(2, 8):
            table[n, s] = min(m + table[m, s] + table[n - m, s - 1] for m in range(1, n))
    for (n, s), value in table.items():
        assert extra_advances(n, s) == value


@pytest.mark.parametrize(("n", "slots"), [(0, 1), (3, 0)])
def test_closed_form_rejects_empty_chains_and_no_slots(n: int, slots: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        extra_advances(n, slots)


@pytest.mark.parametrize("turn", ["none", "loss", "seed", "resident"])
@pytest.mark.parametrize("reads_next", [False, True])
@pytest.mark.parametrize("counted_start", [False, True])
def test_no_schedule_is_cheaper(counted_start: bool, reads_next: bool, turn: str) -> None:
    for n in (2, 3, 5):
        problem = time_stepping(n, counted_start=counted_start, reads_next=reads_next, turn=turn)
        for budget in range(2, n + 6):
            best = exact(problem, budget)
            schedule = binomial_schedule(problem, budget)
            if best.peak_bytes > budget:
                assert schedule is None
                continue
            assert schedule is not None
            replay = simulate(problem, schedule)
            assert replay.peak_bytes <= budget
            assert replay.cost == best.cost


@pytest.mark.parametrize("reads_next", [False, True])
def test_strict_memory_model_leaves_three_or_four_states_less(reads_next: bool) -> None:
    """With the seed's gradient resident from the start, M states of memory are M - 3 slots."""
    for n in (7, 20, 60):
        problem = time_stepping(n, reads_next=reads_next, turn="resident")
        for slots in (1, 2, 3, 5):
            schedule = binomial_schedule(problem, slots + 3 + reads_next)
            assert schedule is not None
            assert simulate(problem, schedule).cost == extra_advances(n, slots) + 1


def test_every_chain_to_100_steps_and_12_slots_has_the_binomial_minimum() -> None:
    for n in range(1, 101):
        problem = time_stepping(n, turn="resident")
        for slots in range(1, 13):
            schedule = binomial_schedule(problem, slots + 3)
            assert schedule is not None
            replay = simulate(problem, schedule)
            assert replay.peak_bytes <= slots + 3
            assert replay.cost == extra_advances(n, slots) + 1


def test_long_chains_are_written_without_recursion() -> None:
    problem = time_stepping(20_000, turn="resident")
    schedule = binomial_schedule(problem, 13)
    assert schedule is not None
    replay = simulate(problem, schedule)
    assert replay.peak_bytes <= 13
    assert replay.cost == extra_advances(20_000, 10) + 1


def test_other_graphs_are_not_recognised() -> None:
    chain = time_stepping(5, turn="loss")
    assert recognise(chain) is not None
    uneven = dataclasses.replace(chain.ops[3], cost=2.0)
    changed = [*chain.ops]
    changed[3] = uneven
    odd = RematProblem(tuple(changed), chain.values, chain.inputs, chain.outputs, None)
    assert recognise(odd) is None
    assert recognise(block_stack(2)) is None
    for seed in range(40):
        problem = random_problem(seed, 9)
        schedule = binomial_schedule(problem, 12)
        if schedule is not None:
            assert simulate(problem, schedule).peak_bytes <= 12
