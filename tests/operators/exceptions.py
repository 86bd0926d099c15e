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


EXCEPTIONS = (
    Known(
        ("masked_select", "combinations", "tensor_split"),
        "refused",
        "how large its result is depends on the data, so no plan can be made",
        samples=(0,),
    ),
    Known(
        ("index_fill",),
        "refused",
        "its backward asks for the distinct indices, and how many there are depends on the data",
        samples=(1,),
    ),
    Known(
        ("narrow",),
        "refused",
        "where its view begins is read from a tensor: a number that nothing plans to keep",
        samples=(1,),
    ),
)


def expected_kind(case: Case) -> str | None:
    """How a case is known to fail; None for one that should pass."""
    return next((known.kind for known in EXCEPTIONS if known.covers(case)), None)


def surprises(rows: Iterable[Row]) -> list[str]:
    """The cases that fail and aren't known to, or are known to fail and don't."""
    found: list[str] = []
    for row in rows:
        known = expected_kind(Case.named(row["name"]))
        if (row["kind"] not in FINE or known is not None) and row["kind"] != known:
            found.append(f"{row['name']}: {row['kind']} {row['reason']}, expected {known or 'ok'}")
    return found
