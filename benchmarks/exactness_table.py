"""The table of exactness, from the results kept in the repo.

python -m benchmarks.exactness_table [--models NAME ...] [--into docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.exactness import KEPT, MODELS
from benchmarks.marks import show

BEGIN, END = "<!-- exactness: begin -->", "<!-- exactness: end -->"


def rows_of(folder: Path, models: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    paths = [folder / f"{model}.jsonl" for model in models]
    found = [[json.loads(line) for line in p.read_text().splitlines()] for p in paths if p.exists()]
    return {rows[0]["model"]: rows for rows in found}


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """One line a model: extra time predicted at each budget, the floor, and what was checked."""
    lines = [
        "| model | nothing recomputed | +time at 0.7 | at 0.5 | at 0.4 | floor "
        "| measured / planned | over budget | bits |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, rows in found.items():
        good = {str(row["budget"]): row for row in rows if row["status"] == "ok"}
        cells = [
            f"+{100 * good[b]['predicted_extra']:.1f} %" if b in good else "below floor"
            for b in ("0.7", "0.5", "0.4")
        ]
        floor = good.get("floor")
        share = f"{floor['planned_peak_bytes'] / floor['baseline_peak_bytes']:.0%}" if floor else ""
        ratios = [row["measured_peak_bytes"] / row["planned_peak_bytes"] for row in good.values()]
        over = sum(not row["within_budget"] for row in good.values())
        exact = all(row["bitwise"] and row.get("clipping_same", True) for row in good.values())
        reference = next(iter(good.values()))["reference"]
        lines.append(
            f"| {model} | {next(iter(good.values()))['baseline_peak_bytes'] / 2**20:.1f} MiB | "
            + " | ".join(cells)
            + f" | {share} | {min(ratios):.5f} to {max(ratios):.5f} | {over} of {len(good)} | "
            + (f"same as {reference}" if exact else "DIFFER")
            + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--into", type=Path)
    args = parser.parse_args()
    show(table(rows_of(KEPT, args.models)), args.into, BEGIN, END)


if __name__ == "__main__":
    main()
