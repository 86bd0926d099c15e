"""`fxremat explain`, `export` and `bench`: a model that a factory makes, under budgets."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from fxremat import torch_hooks
from fxremat.annotate.annotate import COST_MODELS
from fxremat.cli.shared import add_json, answer, budget_of, model_of
from fxremat.errors import GraphBreakError, OptionError
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.optimize import optimize
from fxremat.measure.peak import measure_peak
from fxremat.pipeline.progress import said
from fxremat.plan.options import EXECUTORS
from fxremat.report.explain import explain, floor, human_bytes
from fxremat.report.export import export_problem
from fxremat.report.front import front_of
from fxremat.report.steps import explain_step
from fxremat.report.trace import trace_of

_FACTORY = "module:function that returns a model and its inputs"
_BUDGET = "of the step memory: 6GiB, bytes, or a fraction such as 0.5"


def add_parser(commands: Any) -> None:
    """Add the commands."""
    report: argparse.ArgumentParser = commands.add_parser(
        "explain", help="what a plan keeps and recomputes, and what that costs"
    )
    report.add_argument("factory", help=_FACTORY)
    report.add_argument("--budget", required=True, help=_BUDGET)
    report.add_argument("--html", type=Path, help="also write a page")
    report.add_argument("--front", type=int, default=0, metavar="N", help="also solve N budgets")
    report.add_argument("--floor", action="store_true", help="also search for the least budget")
    report.set_defaults(run=run_explain)
    export: argparse.ArgumentParser = commands.add_parser(
        "export", help="write a model's problem, its schedule under a budget, or a trace of that"
    )
    export.add_argument("factory", help=_FACTORY)
    export.add_argument("--out", type=Path, required=True, help="the file to write")
    export.add_argument(
        "--what",
        default="problem",
        choices=("problem", "schedule", "trace"),
        help="trace: for ui.perfetto.dev (default problem)",
    )
    export.add_argument("--budget", help=f"{_BUDGET}; for a schedule or a trace")
    export.set_defaults(run=run_export)
    bench: argparse.ArgumentParser = commands.add_parser(
        "bench", help="run a model's step under budgets, here: measured peaks and times"
    )
    bench.add_argument("factory", help=_FACTORY)
    bench.add_argument("--budgets", default="0.8,0.6", help="several, such as 0.8,0.6,2GiB")
    bench.add_argument("--steps", type=int, default=5, help="that are timed (default 5)")
    bench.set_defaults(run=run_bench)
    for parser in (report, export, bench):
        parser.add_argument("--cost", default="auto", choices=COST_MODELS)
        parser.add_argument("--executor", default="eager", choices=tuple(EXECUTORS))
        add_json(parser)


def run_explain(args: argparse.Namespace) -> int:
    """Plan a model, and print the report."""
    model, inputs = model_of(args.factory)
    optimized = _planned(model, inputs, args, args.budget)
    if args.floor:
        with said("searching for the smallest budget"):
            floor(optimized)
    report = explain(optimized)
    if args.front:
        plan = compiled_of(optimized).backend.history.graphs[-1].plan
        with said(f"solving {args.front} budgets"):
            report = report.with_front(front_of(plan, points=args.front))
    if args.html is not None:
        report.to_html(args.html)
    answer(args, json.loads(report.to_json()), report)
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write a file."""
    if args.what != "problem" and args.budget is None:
        raise OptionError(f"a {args.what} is one under a budget: give --budget")
    model, inputs = model_of(args.factory)
    if args.what == "problem":
        text = export_problem(model, inputs, cost=args.cost, executor=args.executor)
    else:
        optimized = _planned(model, inputs, args, args.budget)
        plan = compiled_of(optimized).backend.history.graphs[-1].plan
        text = plan.schedule.to_json() if args.what == "schedule" else trace_of(plan)
    args.out.write_text(text)
    figures = {"what": args.what, "file": str(args.out), "bytes": len(text)}
    answer(args, figures, f"{args.out}: {args.what}, {len(text):,} B")
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Time steps, and measure their peaks."""
    if args.steps < 1:
        raise OptionError(f"--steps is {args.steps}: it must be above 0")
    model, inputs = model_of(args.factory)
    with said("running the step as it is"):
        rows = [{"budget": "none", **_measured(model, inputs, args.steps)}]
    for text in args.budgets.split(","):
        optimized = optimize(model, budget=budget_of(text), cost=args.cost, executor=args.executor)
        measured = _measured(optimized, inputs, args.steps)
        budget_bytes, planned_bytes = _planned_bytes(optimized)
        planned = {"budget_bytes": budget_bytes, "planned_bytes": planned_bytes}
        rows.append({"budget": text, **measured, **planned})
    answer(args, {"rows": rows}, _table(rows))
    return 0


def _planned(model: Any, inputs: Any, args: argparse.Namespace, budget: str) -> Any:
    try:
        optimized = optimize(
            model,
            budget=budget_of(budget),
            cost=args.cost,
            executor=args.executor,
            example_inputs=inputs,
        )
    except GraphBreakError as error:
        raise GraphBreakError(
            "the model does not trace into one graph, which a plan ahead of its steps needs. "
            "`fxremat bench` runs and plans several; or remove what breaks the graph:\n"
            + str(error).partition("\n")[2]
        ) from error
    if not compiled_of(optimized).backend.history.graphs:
        raise OptionError("the model has nothing to differentiate: it traces no training graph")
    return optimized


def _planned_bytes(optimized: Any) -> tuple[int | None, int | None]:
    """The budget and the peak of the step, of one graph or of several that are planned together."""
    graphs = compiled_of(optimized).backend.history.graphs
    if len(graphs) == 1:
        return graphs[0].plan.budget_bytes, graphs[0].plan.peak_bytes
    try:
        step = explain_step(optimized)
    except OptionError:
        return None, None
    return step.budget_bytes, step.planned_peak_bytes


def _measured(model: Callable[..., Any], inputs: Any, steps: int) -> dict[str, Any]:
    """The peak of a step, and the median of their times; the first ones compile."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    device = next((each.device for each in parameters), torch.device("cpu"))

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward(_loss_of(_call(model, inputs)))

    for _ in range(2):
        step()
    for parameter in parameters:
        parameter.grad = None
    peak = measure_peak(step, device=device)
    seconds: list[float] = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return {"peak_bytes": peak.peak_bytes, "step_s": statistics.median(seconds)}


def _call(model: Callable[..., Any], inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def _loss_of(results: Any) -> torch.Tensor:
    """A loss that the model returns, or the sum of all that has gradients."""
    loss = getattr(results, "loss", None)
    if isinstance(loss, torch.Tensor):
        return loss
    trained = [
        each
        for each in torch_hooks.tree_leaves(results)
        if isinstance(each, torch.Tensor) and each.requires_grad
    ]
    if not trained:
        raise OptionError("the model returns nothing with a gradient: there is no step to run")
    if len(trained) == 1 and trained[0].ndim == 0:
        return trained[0]
    return torch.stack([each.float().sum() for each in trained]).sum()


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("budget", "planned peak", "measured peak", "step, ms", "more time"):
        table.add_column(heading, justify="right")
    for row in rows:
        planned = row.get("planned_bytes")
        table.add_row(
            row["budget"],
            "" if planned is None else human_bytes(planned),
            human_bytes(row["peak_bytes"]),
            f"{1e3 * row['step_s']:.1f}",
            f"{100 * (row['step_s'] / rows[0]['step_s'] - 1):+.1f} %",
        )
    return table
