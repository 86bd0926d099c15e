"""The benchmark harness: `python -m benchmarks run | report | sweep | list`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import methods, suites, zoo
from benchmarks.runner import Limits, run


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    go = commands.add_parser("run", help="run cells; what is done already isn't run again")
    go.add_argument("--quick", action="store_true", help="the quick suite, under 10 minutes")
    go.add_argument("--models", nargs="+", help="only these models (see `list`)")
    go.add_argument("--methods", nargs="+", help="only these methods (see `list`)")
    go.add_argument("--budgets", nargs="+", help="these points for methods with a dial")
    go.add_argument("--kinds", nargs="+", help="only these kinds of cells: step, batch, clip")
    go.add_argument("--out", type=Path, default=Path("benchmarks/results/run"))
    go.add_argument("--device", default="cpu", help="cpu or cuda")
    go.add_argument("--seed", type=int, default=0)
    go.add_argument("--threads", type=int, default=1, help="threads of each cell")
    go.add_argument("--jobs", type=int, default=1, help="cells at once")
    go.add_argument("--time-limit", type=float, default=900, help="seconds a cell may take")
    go.add_argument("--memory-limit", type=float, default=16, help="GiB a cell may map (CPU)")
    go.add_argument("--retry", action="store_true", help="run cells without figures again")
    show = commands.add_parser("report", help="tables and plots from a run's rows")
    show.add_argument("folder", type=Path)
    show.add_argument("--into", type=Path, help="also into this page, between its two marks")
    many = commands.add_parser(
        "sweep", help="hundreds of models, three steps each (docs/models.md)"
    )
    many.add_argument("--models", nargs="+", default=["*"], help="patterns such as 'timm/*'")
    many.add_argument("--out", type=Path, default=Path("bench-output/sweep"))
    many.add_argument("--limit-s", type=float, default=240, help="seconds a model may take")
    many.add_argument("--executor", choices=("eager", "inductor"), default="eager")
    many.add_argument("--retry", nargs="*", default=[], help="outcomes to run again, e.g. wrong")
    commands.add_parser("list", help="the models and the methods")
    return top


def cells_of(args: argparse.Namespace) -> list[suites.Cell]:
    if args.quick and (args.device != "cpu" or args.budgets):
        raise ValueError("--quick is a fixed choice for the CPU: leave --device and --budgets out")
    chosen = suites.quick() if args.quick else suites.full(args.device)
    size = "bench" if args.device == "cpu" else "cuda"
    where = {"device": args.device, "size": size}
    if args.budgets:
        models = args.models or list(zoo.CASES)
        names = args.methods or list(methods.METHODS)
        chosen = list(suites.steps(models, names, args.budgets, **where))
    elif args.models and args.methods and not args.quick:
        # Named together they are run, whether or not the full run has them.
        named = suites.steps(args.models, args.methods, None, **where)
        known = {cell.key for cell in chosen}
        chosen += [cell for cell in named if cell.key not in known]
    for name in args.models or ():
        zoo.get(name)
    for name in args.methods or ():
        methods.get(name)
    return [
        dataclasses.replace(cell, seed=args.seed)
        for cell in chosen
        if (not args.models or cell.model in args.models)
        and (not args.methods or cell.method in args.methods)
        and (not args.kinds or cell.kind in args.kinds)
    ]


def list_all(console: Console) -> None:
    models = Table(title="models", title_justify="left")
    for column in ("name", "source", "sizes"):
        models.add_column(column, no_wrap=column == "name")
    for case in zoo.CASES.values():
        models.add_row(case.name, case.source, ", ".join(case.sizes))
    known = Table(title="methods", title_justify="left")
    for column in ("name", "what it is", "points"):
        known.add_column(column, no_wrap=column == "name")
    for method in methods.METHODS.values():
        known.add_row(method.name, method.about, " ".join(method.points))
    console.print(models)
    console.print(known)


def main() -> int:
    args = parser().parse_args()
    console = Console()
    if args.command == "list":
        list_all(console)
    elif args.command == "sweep":
        from benchmarks.sweep.run import sweep

        sweep(
            args.models,
            args.out,
            args.limit_s,
            console,
            retry=args.retry,
            executor=args.executor,
        )
    elif args.command == "report":
        from benchmarks.report import write, write_into

        written = write(args.folder)
        if args.into is not None:
            written.append(write_into(args.into, args.folder))
        for path in written:
            console.print(f"wrote {path}")
    else:
        try:
            cells = cells_of(args)
        except ValueError as error:
            console.print(f"[red]{error}[/red]")
            return 2
        limits = Limits(
            args.time_limit, int(args.memory_limit * (1 << 30)), args.threads, args.jobs
        )
        effort = suites.QUICK_EFFORT if args.quick else suites.FULL_EFFORT
        run(cells, args.out, effort, limits, console, args.retry)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
