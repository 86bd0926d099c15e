"""Many random programs, and a file that says how many: python -m tests.programs --count 10000

They run in blocks, each from a seed of its own in a process of its own. A block that has a row is
not run again. A program that fails is shrunk and shown, and ends its block.
`--keep` writes the rows into benchmarks/results/programs.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks import records
from benchmarks.cuda.machine import commit
from benchmarks.own_process import ProcessFailed, print_row, rows_of
from tests.programs.many import check_many

BLOCK = 500
KEPT = Path("benchmarks/results/programs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help=f"rounded up to blocks of {BLOCK}")
    parser.add_argument("--seed", type=int, default=0, help="of the first block")
    parser.add_argument("--out", type=Path, default=Path("bench-output/programs"))
    parser.add_argument("--keep", action="store_true", help="write the rows where they are kept")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore")
        print_row(dict(check_many(BLOCK, args.seed)))
        return
    known = records.load(args.out)
    for seed in range(args.seed, args.seed + math.ceil(args.count / BLOCK)):
        if f"seed {seed}" not in known:
            row = {"key": f"seed {seed}", **_block(seed), "commit": commit()}
            records.append(args.out, row)
            print(row, flush=True)
    if args.keep:
        command = " ".join(["python -m tests.programs", *sys.argv[1:]])
        about = {**records.environment(1), "command": command}
        for row in records.load(args.out).values():
            records.append(KEPT, {**row, **about})
        records.compact(KEPT)


def _block(seed: int) -> dict[str, Any]:
    """What became of the programs of one seed."""
    started = time.perf_counter()
    try:
        (row,) = rows_of("tests.programs", "--here", "--seed", str(seed))
        found = {"outcome": "ok", **row}
    except ProcessFailed as error:
        found = {"outcome": "failed", "reason": str(error)}
    return {**found, "seconds": round(time.perf_counter() - started)}


if __name__ == "__main__":
    main()
