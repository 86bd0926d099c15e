"""`python -m benchmarks.cuda run | report`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import records
from benchmarks.cuda import report
from benchmarks.cuda.run import PARTS, Options, run


def parts_of(words: str) -> tuple[str, ...]:
    """`tests,bench` in the order in which parts run."""
    named = [word for word in words.replace(",", " ").split() if word]
    unknown = [word for word in named if word not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]}; there are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in named) or tuple(PARTS)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    go = commands.add_parser("run", help="run the parts; what is done already isn't run again")
    go.add_argument("--device", default="cuda", help="cuda, or cpu for a small part of it")
    go.add_argument("--parts", type=parts_of, default=tuple(PARTS), help=",".join(PARTS))
    go.add_argument("--out", type=Path, help="default: bench-output/cuda, or cuda-cpu")
    go.add_argument("--limit-s", type=float, default=540, help="seconds, installing included")
    go.add_argument("--cell-limit-s", type=float, default=150, help="seconds a cell may take")
    go.add_argument("--wheels", type=Path, help="a folder to install missing packages from")
    go.add_argument("--threads", type=int, default=1, help="of PyTorch, on the CPU")
    go.add_argument("--retry", action="store_true", help="run failed cells again")
    again = commands.add_parser("report", help="write a folder's report anew")
    again.add_argument("folder", type=Path)
    return top


def main() -> int:
    args = parser().parse_args()
    if args.command == "report":
        found = {part: records.load(args.folder, f"{part}.jsonl").values() for part in PARTS}
        about = json.loads((args.folder / "machine.json").read_text())
        text = report.report(about, {part: list(rows) for part, rows in found.items()})
        (args.folder / "report.md").write_text(text)
        print(args.folder / "report.md")
        return 0
    name = "cuda" if args.device.startswith("cuda") else f"cuda-{args.device}"
    return run(
        Options(
            device=args.device,
            parts=args.parts,
            out=args.out or Path("bench-output") / name,
            limit_s=args.limit_s,
            cell_limit_s=args.cell_limit_s,
            wheels=args.wheels,
            retry=args.retry,
            threads=args.threads,
            command=tuple(sys.argv[1:]),
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
