"""What a run found: counts by kind, and every case that is not as eager is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.records import Row
from tests.operators.samples import Case

KEPT = Path("benchmarks/results/operators")


def kind_of(row: Row) -> str:
    """The kind of a row, with AOTAutograd's bits as one of its own."""
    if row["kind"] == "ok" and row["reference"] != "eager":
        return "ok, AOTAutograd's bits"
    return row["kind"]


def text(rows: Sequence[Row]) -> str:
    counts = Counter(kind_of(row) for row in rows)
    lines = [f"{count:>6}  {kind}" for kind, count in counts.most_common()]
    again = sum(row["kind"] == "ok" and row["recomputed"] > 0 for row in rows)
    minutes = sum(row["seconds"] for row in rows) / 60
    lines.append(f"{len(rows):>6}  in all, {minutes:.0f} minutes; {again} recompute at the floor")
    return "\n".join(lines)


def keep(rows: Sequence[Row], about: Mapping[str, Any], folder: Path = KEPT) -> None:
    """The kind of every case, and in full the rows of all that failed or that torch refuses.

    Cases that were kept before and have no row now stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before, others, commits = _kept(folder)
    new = {row["name"]: row for row in rows}
    kinds = before | {name: kind_of(row) for name, row in new.items()}
    others = {name: row for name, row in others.items() if name not in new}
    others |= {name: row for name, row in new.items() if row["kind"] != "ok"}
    head = {
        **about,
        "commits": sorted(commits | {row["commit"] for row in rows}),
        "total": dict(Counter(kinds.values())),
    }
    by_op: dict[str, dict[str, dict[int, str]]] = {}
    for name in sorted(kinds):
        case = Case.named(name)
        by_op.setdefault(case.op, {}).setdefault(case.dtype, {})[case.index] = kinds[name]
    # One line an op.
    lines = [f"{json.dumps(op)}: {json.dumps(found)}" for op, found in by_op.items()]
    ops = "{\n" + ",\n".join(lines) + "\n}"
    (folder / "by_op.json").write_text(f'{{"about": {json.dumps(head)},\n"ops": {ops}}}\n')
    shown = [{k: v for k, v in row.items() if v and k != "key"} for row in others.values()]
    (folder / "not_ok.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))


def kept_cases(folder: Path = KEPT) -> set[str]:
    """The names of all cases that a run was kept of."""
    return set(_kept(folder)[0])


def _kept(folder: Path) -> tuple[dict[str, str], dict[str, Row], set[str]]:
    """Kinds by name, the rows of those that are not ok, and the commits that they were run at."""
    if not (folder / "by_op.json").exists():
        return {}, {}, set()
    kept = json.loads((folder / "by_op.json").read_text())
    kinds = {
        Case(op, dtype, int(index)).name: kind
        for op, found in kept["ops"].items()
        for dtype, samples in found.items()
        for index, kind in samples.items()
    }
    lines = (folder / "not_ok.jsonl").read_text().splitlines()
    return (
        kinds,
        {row["name"]: row for row in map(json.loads, lines)},
        set(kept["about"]["commits"]),
    )
