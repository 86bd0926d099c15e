"""The commands `estimate` and `devices`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fxremat.errors import OptionError
from fxremat.estimate.device import DEVICES, this_cpu
from fxremat.estimate.estimate import estimate, factory_at
from fxremat.estimate.resident import OPTIMIZERS
from fxremat.report.explain import human_bytes


def add_parser(subparsers: Any) -> None:
    """Add both commands; each sets `run`, which takes the parsed arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "estimate", help="what a step would take on a device, and what budgets cost"
    )
    parser.add_argument("factory", help="module:function that returns a model and its inputs")
    parser.add_argument("--device", default="cpu", help="a name that `devices` lists")
    parser.add_argument("--budget", help="of the step memory: 6GiB, or a fraction such as 0.5")
    parser.add_argument("--batch-sizes", help="such as 1,2,4,8; left out, the largest is sought")
    parser.add_argument("--dtype", help="bf16, fp16 or fp32; left out, the model's own")
    parser.add_argument("--optimizer", default="adamw", help=", ".join((*OPTIMIZERS, "none")))
    parser.add_argument("--points", type=int, default=16, help="budgets that are planned")
    parser.add_argument("--time-limit-s", type=float, default=120.0, help="for plans and bounds")
    parser.add_argument("--out", type=Path, help="also write a page: report.html")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.set_defaults(run=run_estimate)
    devices: argparse.ArgumentParser = subparsers.add_parser(
        "devices", help="the devices that estimate knows, with sources"
    )
    devices.add_argument("--json", action="store_true", help="print figures as JSON")
    devices.set_defaults(run=run_devices)


def run_estimate(args: argparse.Namespace) -> int:
    """Print an estimate."""
    found = estimate(
        factory_at(args.factory),
        device=args.device,
        budget=_budget(args.budget),
        batch_sizes=_numbers(args.batch_sizes),
        dtype=args.dtype,
        optimizer=args.optimizer,
        points=args.points,
        time_limit_s=args.time_limit_s,
    )
    if args.out is not None:
        args.out.write_text(found.to_html())
    if args.json:
        print(found.to_json())
    else:
        Console(width=100, file=sys.stdout).print(found)
    return 0


def run_devices(args: argparse.Namespace) -> int:
    """Print the table of devices, this machine's processor measured now."""
    specs = [*DEVICES.values(), this_cpu()]
    if args.json:
        figures = [{**vars(each), "product_flops": dict(each.product_flops)} for each in specs]
        print(json.dumps(figures))
        return 0
    table = Table(title="TFLOP/s of matrix products, GB/s", title_justify="left")
    for heading in ("device", "half", "tf32", "fp32", "memory", "host", "capacity"):
        table.add_column(heading, justify="left" if heading == "device" else "right")
    table.add_column("source", overflow="fold")
    for spec in specs:
        rates = [spec.product_flops.get(key) for key in ("half", "tf32", "float32")]
        table.add_row(
            spec.name,
            *("" if rate is None else f"{rate / 1e12:.4g}" for rate in rates),
            f"{spec.bandwidth / 1e9:.4g}",
            f"{spec.host_bandwidth / 1e9:.3g}",
            human_bytes(spec.capacity_bytes),
            spec.source,
        )
    Console(width=100, file=sys.stdout).print(table)
    return 0


def _budget(text: str | None) -> str | float | None:
    """A fraction is a number alone, a size has a unit."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(each) for each in text.split(",") if each.strip()]
    except ValueError:
        raise OptionError(f"--batch-sizes is {text!r}: write numbers, such as 1,2,4,8") from None
