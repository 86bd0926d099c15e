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
    """Counts by op, and in full the rows of all cases that failed or that torch refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    by_op: dict[str, Counter[str]] = {}
    for row in rows:
        by_op.setdefault(Case.named(row["name"]).op, Counter())[kind_of(row)] += 1
    commits = sorted({row["commit"] for row in rows})
    total = Counter(kind_of(row) for row in rows)
    head = {**about, "commits": commits, "total": dict(total)}
    lines = [f"{json.dumps(op)}: {json.dumps(dict(counts))}" for op, counts in by_op.items()]
    # One line an op.
    ops = "{\n" + ",\n".join(lines) + "\n}"
    (folder / "by_op.json").write_text(f'{{"about": {json.dumps(head)},\n"ops": {ops}}}\n')
    others = [row for row in rows if row["kind"] != "ok"]
    shown = [{k: v for k, v in row.items() if v and k != "key"} for row in others]
    (folder / "not_ok.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))
