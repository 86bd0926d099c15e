"""Every operator of torch that has a gradient, in every type: bits and bytes.

python -m tests.operators [--dtypes float32 ...] [--ops ...] [--samples 2] [--out DIR] [--keep]

Goes on from the rows that it finds. `--keep` writes the summary into benchmarks/results/operators;
with `--missing` only cases that are not there run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks import records
from benchmarks.cuda.machine import commit
from tests.operators import summary
from tests.operators.outcome import FINE
from tests.operators.runner import run, run_here
from tests.operators.samples import DTYPES, SAMPLES, all_cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtypes", nargs="*", default=[str(d)[6:] for d in DTYPES])
    parser.add_argument("--ops", nargs="*", help="only these")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each op and type")
    parser.add_argument("--limit-s", type=float, default=120, help="of one case")
    parser.add_argument("--retry", action="store_true", help="run what failed before anew")
    parser.add_argument("--out", type=Path, default=Path("bench-output/operators"))
    parser.add_argument("--missing", action="store_true", help="only cases that aren't kept yet")
    parser.add_argument("--keep", action="store_true", help="write the summary where it is kept")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        run_here(args.names, args.limit_s)
        return
    cases = list(all_cases([getattr(torch, d) for d in args.dtypes], args.samples))
    known = summary.kept_cases() if args.missing else set[str]()
    wanted = [c.name for c in cases if not args.ops or c.op in args.ops]
    names = [name for name in wanted if name not in known]

    def tell(row: records.Row) -> None:
        if row["kind"] not in FINE:
            print(f"{row['name']}: {row['kind']} {row['reason']}", flush=True)

    about = {"commit": commit()}
    run(names, args.out, about, limit_s=args.limit_s, retry=args.retry, tell=tell)
    found = [row for name, row in records.load(args.out).items() if name in set(names)]
    print(summary.text(found))
    if args.keep:
        command = " ".join(["python -m tests.operators", *sys.argv[1:]])
        summary.keep(found, {**records.environment(threads=1), "command": command})


if __name__ == "__main__":
    main()
