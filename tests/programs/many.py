"""Many random programs: for the slow test, and for the command that keeps how many ran."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.programs.outcome import check
from tests.programs.programs import Program, programs

SHARES = (0.0, 0.3, 1.0)
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def check_many(count: int, first_seed: int | None = None) -> Counter[str]:
    """Check so many programs, and count them and their statements; the first that fails raises.

    The same ones for the same seed, others each time without one.
    """
    ran: Counter[str] = Counter()

    @settings(max_examples=count, database=None, derandomize=False, print_blob=True, **QUIET)
    @given(program=programs(), share=st.sampled_from(SHARES))
    def each(program: Program, share: float) -> None:
        check(program, share)
        ran["programs"] += 1
        ran["statements"] += len(program.statements)

    (each if first_seed is None else seed(first_seed)(each))()
    return ran
