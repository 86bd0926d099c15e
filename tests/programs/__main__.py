"""Many random programs, and a file that says how many: python -m tests.programs --count 1000

A program that fails is shrunk and shown, and ends the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from benchmarks.cuda.machine import commit
from benchmarks.records import environment
from tests.programs.outcome import check
from tests.programs.programs import Program, programs

SHARES = (0.0, 0.3, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench-output/programs.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    ran: Counter[str] = Counter()
    started = time.perf_counter()

    @seed(args.seed)
    @settings(
        max_examples=args.count,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(program=programs(), share=st.sampled_from(SHARES))
    def each(program: Program, share: float) -> None:
        check(program, share)
        ran["programs"] += 1
        ran["statements"] += len(program.statements)

    each()
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
