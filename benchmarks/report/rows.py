"""The rows of a run, as the tables ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import zoo
from benchmarks.records import Row


@dataclass(frozen=True)
class Rows:
    """All rows of a run."""

    all: tuple[Row, ...]

    def of_kind(self, kind: str, plain: bool = True) -> Iterator[Row]:
        """The rows that worked; `plain` leaves out those of a changed model size."""
        for row in self.all:
            if row["kind"] == kind and row["status"] == "ok" and not (plain and row["numbers"]):
                yield row

    def models(self, kind: str = "step") -> list[str]:
        """Models with rows, in the zoo's order."""
        found = {row["model"] for row in self.of_kind(kind, plain=False)}
        return [name for name in zoo.CASES if name in found]

    def steps(self, model: str) -> list[Row]:
        return [row for row in self.of_kind("step") if row["model"] == model]

    def below_floor(self, model: str, peak_bytes: float) -> bool:
        """Whether fxremat said that a budget of so many bytes, or a higher one, can't be met."""
        return any(
            row["model"] == model
            and row["method"] == "fxremat"
            and row["status"] == "unavailable"
            and row["reason"].startswith("infeasible")
            and (row.get("budget_bytes") or 0) >= int(peak_bytes)
            for row in self.all
        )

    def untouched(self, model: str) -> Row | None:
        """fxremat's timed row with nothing recomputed: what its plans' own times are over."""
        row = self.step(model, "fxremat", "1")
        return row if row is not None and "time" in row else None

    def step(self, model: str, method: str, point: str = "") -> Row | None:
        for row in self.steps(model):
            if row["method"] == method and row["point"] == point:
                return row
        return None


def is_ours(row: Row) -> bool:
    return row["method"].startswith("fxremat")


def is_right(row: Row) -> bool:
    """Gradients that are eager's, up to the order of float sums."""
    return row["verdict"] != "wrong" or row.get("equals_aot_eager", False)


def extra(row: Row) -> float:
    """Extra time over eager, as a share."""
    return row["time"]["median"] - 1


def figure(row: Row | None, name: str) -> float | None:
    """A figure of a row that may be missing."""
    return None if row is None else row[name]


def right(rows: list[Row]) -> list[Row]:
    """Timed rows whose gradients and buffers are right."""
    return [row for row in timed(rows) if is_right(row)]


def timed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if "time" in row]


def fastest_within(rows: list[Row], peak_bytes: float) -> dict[str, Row]:
    """For every method its fastest right row within a peak."""
    best: dict[str, Row] = {}
    for row in right(rows):
        if row["peak_bytes"] > peak_bytes:
            continue
        if row["method"] not in best or extra(row) < extra(best[row["method"]]):
            best[row["method"]] = row
    return best


def lowest(rows: list[Row], *, ours: bool) -> Row | None:
    """The right row of the lowest peak, fxremat's or the peers'."""
    mine = (row for row in right(rows) if is_ours(row) == ours)
    return min(mine, key=lambda r: r["peak_bytes"], default=None)


def plan_extra(row: Row, base: Row) -> tuple[float, float, float]:
    """Measured extra time over the same graph with nothing recomputed: the median of the row's
    rounds and the ends of their middle half, each over the median of the base's."""
    time, its = row["time"], base["time"]["median"]
    return time["median"] / its - 1, time["low"] / its - 1, time["high"] / its - 1


def planned_within(rows: list[Row], peak_bytes: float) -> Row | None:
    """fxremat's right row of the highest peak within a peak: the plan made for about that budget.

    Not the fastest row: among plans for lower budgets that would be the luckiest timing.
    """
    mine = (r for r in right(rows) if r["method"] == "fxremat" and r["peak_bytes"] <= peak_bytes)
    return max(mine, key=lambda r: (r["peak_bytes"], -extra(r)), default=None)
