"""Many random programs, and a file that says how many: python -m tests.programs --count 1000

A program that fails is shrunk and shown, and ends the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import torch

from benchmarks.cuda.machine import commit
from benchmarks.records import environment
from tests.programs.many import check_many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench-output/programs.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    started = time.perf_counter()
    ran = check_many(args.count, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "seed": args.seed,
        **ran,
        "wrong": 0,
        "over budget": 0,
        "seconds": round(time.perf_counter() - started),
        "commit": commit(),
        "command": f"python -m tests.programs {' '.join(sys.argv[1:])}",
    }
    args.out.write_text(json.dumps(document | environment(1), indent=1) + "\n")
    print(args.out.read_text())


if __name__ == "__main__":
    main()
