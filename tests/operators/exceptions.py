"""Cases that fail, with the reason of each: a list that only shrinks.

A case that fails and is not here fails the tests, and so does one that is here and passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.records import Row
from tests.operators.outcome import FINE
from tests.operators.samples import SAMPLES, Case


@dataclass(frozen=True)
class Known:
    """Cases of some ops that fail in one way: in every type and sample, or in those named."""

    ops: tuple[str, ...]
    kind: str
    reason: str
    dtypes: tuple[str, ...] = ()
    samples: tuple[int, ...] = tuple(range(SAMPLES))

    def covers(self, case: Case) -> bool:
        return (
            case.op in self.ops
            and case.index in self.samples
            and (not self.dtypes or case.dtype in self.dtypes)
        )


EXCEPTIONS: tuple[Known, ...] = ()


def expected_kind(case: Case, exceptions: Iterable[Known] = EXCEPTIONS) -> str | None:
    """How a case is known to fail; None for one that should pass."""
    return next((known.kind for known in exceptions if known.covers(case)), None)


def surprises(rows: Iterable[Row], exceptions: Iterable[Known] = EXCEPTIONS) -> list[str]:
    """The cases that fail and aren't known to, or are known to fail and don't."""
    found: list[str] = []
    for row in rows:
        known = expected_kind(Case.named(row["name"]), exceptions)
        if (row["kind"] not in FINE or known is not None) and row["kind"] != known:
            found.append(f"{row['name']}: {row['kind']} {row['reason']}, expected {known or 'ok'}")
    return found
