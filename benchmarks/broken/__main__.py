"""Do budgets hold for steps of many graphs, and bits stay the same? A row a step.

python -m benchmarks.broken [names] [--out DIR] [--budget 0.6] [--size bench]
python -m benchmarks.broken --refused benchmarks/results/sweep

The second takes the models that Dynamo can't trace as one graph, of a sweep's rows. Every step
runs in a process of its own. `refused` rows are of what fxremat says it can't do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import broken, records
from benchmarks.broken.check import CRASH, check, without_folders
from benchmarks.cuda.machine import commit
from benchmarks.own_process import ProcessFailed, child_environment, print_row, rows_of
from benchmarks.sweep import outcomes

OUT = Path("benchmarks/results/broken")


def budget_of(text: str) -> float | str:
    """A fraction, or a size with its unit."""
    try:
        return float(text)
    except ValueError:
        return text


def measured(name: str, budget: str, size: str) -> dict[str, Any]:
    """The row of a step, whatever becomes of its process."""
    try:
        (row,) = rows_of("benchmarks.broken", "--one", name, "--budget", budget, "--size", size)
    except ProcessFailed as error:
        said = [line for line in str(error).splitlines() if line.strip()]
        row = {
            "cause": broken.get(name).cause,
            "status": CRASH,
            "reason": without_folders(said[-1])[:400],
        }
    return {"key": f"{name}/{size}/{budget}", "name": name, **row}


def refused(folder: Path | None) -> list[str]:
    """The models that a sweep found no whole graph of."""
    rows = records.load(folder).values() if folder is not None else ()
    return [row["key"] for row in rows if row["outcome"] == outcomes.REFUSED_BY_DYNAMO]


def line(row: Mapping[str, Any]) -> str:
    """What a reader wants to know of a row first."""
    mib = {
        what: f"{row[f'{what}_bytes'] / 2**20:.1f}"
        for what in ("eager_peak", "baseline_peak", "budget", "measured_peak")
        if row.get(f"{what}_bytes") is not None
    }
    times = [row[each] for each in ("eager_s", "reference_s", "fxremat_s") if each in row]
    broke = sum(row.get("breaks", {}).values())
    return (
        f"{row['name']}: {row['status']}; {row.get('graphs', '?')} graphs, {broke} breaks; "
        f"MiB {mib}; seconds {times}; {row.get('reason', '')}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(broken.STEPS)}; all by default")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--budget", default="0.6")
    parser.add_argument("--size", choices=("tiny", "bench"), default="bench")
    parser.add_argument("--refused", type=Path, help="the folder of a sweep's rows")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        for name in args.names:
            broken.get(name)
    except ValueError as error:
        parser.error(str(error))
    if args.one:
        torch.set_num_threads(1)
        print_row(check(broken.get(args.one), budget_of(args.budget), args.size))
        return
    # Nothing is ever downloaded.
    os.environ.update(child_environment(1) | {"HF_HUB_OFFLINE": "1"})
    about = {
        **records.environment(1),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks.broken", *sys.argv[1:]]),
    }
    for name in [*args.names, *refused(args.refused)] or broken.STEPS:
        row = measured(name, args.budget, args.size)
        records.append(args.out, {**row, **about})
        print(line(row), flush=True)
    records.compact(args.out)


if __name__ == "__main__":
    main()
