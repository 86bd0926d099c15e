"""An estimate as text of at most a hundred columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fxremat.estimate.batches import BatchSize
from fxremat.estimate.record import Figures
from fxremat.report.explain import human_bytes

_HOLDERS = 10


def rendered(found: Figures) -> RenderableType:
    """All of it, as tables."""
    parts: list[RenderableType] = [_summary(found), Text(), _front(found), Text()]
    if found.largest:
        parts += [_batches(found), Text()]
    parts += [_minimum(found)]
    parts += [Text(f"Note: {note}") for note in found.notes]
    return Group(*parts)


def seconds(value: float) -> str:
    """``12.3 ms``"""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.2f} ms"


def examples_a_second(size: BatchSize | None) -> str:
    """``1,234``; empty where no time is known."""
    if size is None or not size.seconds:
        return ""
    rate = size.batch / size.seconds
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2f}"


def percent(share: float | None) -> str:
    """``+1.2%``; empty where it isn't known."""
    return "" if share is None else f"{share:+.1%}"


def verdict(found: Figures) -> str:
    """One line: does it fit, and at what cost."""
    if found.at_budget is None:
        budget, least = human_bytes(found.budget_bytes), human_bytes(found.floor_bytes)
        return f"no plan within {budget}: the least is {least}"
    if not found.optimizer_fits:
        return "the step fits, the optimizer's step doesn't"
    extra = found.at_budget.extra
    return "fits with nothing recomputed" if extra == 0 else f"fits at {extra:+.1%} time"


def _summary(found: Figures) -> RenderableType:
    spec, own = found.device, found.resident
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    batch = "" if found.batch is None else f"batch of {found.batch}, "
    kernels = ", ".join(f"{count} x {name}" for name, count in found.kernels)
    rows = [
        ("device", spec.name, spec.source),
        ("verdict", "", verdict(found)),
        ("usable memory", human_bytes(spec.usable_bytes), f"of {human_bytes(spec.capacity_bytes)}"),
        ("parameters", human_bytes(own.parameter_bytes), ""),
        ("buffers and inputs", human_bytes(own.buffer_bytes + own.input_bytes), ""),
        ("optimizer state", human_bytes(own.optimizer_bytes), found.optimizer),
        ("left for the step", human_bytes(max(0, spec.usable_bytes - own.nbytes)), ""),
        ("budget of the step", human_bytes(found.budget_bytes), ""),
        (
            "step, nothing recomputed",
            human_bytes(found.peak_bytes),
            f"{human_bytes(own.gradient_bytes)} of it gradients",
        ),
        ("step, at the least", human_bytes(found.floor_bytes), f"{found.points[0].extra:+.1%}"),
        (
            "optimizer's step",
            human_bytes(own.optimizer_step_bytes),
            "gradients and what it takes meanwhile"
            + ("" if found.optimizer_fits else ": too much"),
        ),
        (
            "time of a step",
            seconds(found.step_seconds),
            f"modelled, kernels {seconds(found.kernel_seconds)}",
        ),
        ("ops", str(found.operations), f"{batch}mostly {found.dtype}"),
        (
            "worked out in",
            f"{found.trace_s + found.plan_s:.1f} s",
            f"{found.trace_s:.1f} s tracing",
        ),
    ]
    if kernels:
        rows.append(("kernels of the device", "", kernels))
    for row in rows:
        table.add_row(*row)
    return table


def _front(found: Figures) -> RenderableType:
    table = Table(title="Budget against extra time", title_justify="left")
    for heading in ("step memory", "all memory", "extra time", "bound", "fits"):
        table.add_column(heading, justify="right")
    for point in reversed(found.points):
        table.add_row(
            human_bytes(point.step_bytes),
            human_bytes(point.all_bytes),
            f"{point.extra:+.1%}",
            percent(point.bound),
            "yes" if point.fits else "no",
        )
    return table


def _batches(found: Figures) -> RenderableType:
    table = Table(title="Largest batch that fits", title_justify="left")
    for heading in ("extra time up to", "batch", "examples a second"):
        table.add_column(heading, justify="right")
    for cap, size in found.largest:
        batch = "none" if size is None else f"{size.batch:,}"
        table.add_row(f"{cap:+.0%}", batch, examples_a_second(size))
    if not found.batches:
        return table
    sizes = Table(title="Batch sizes", title_justify="left")
    for heading in ("batch", "all memory", "extra time", "fits"):
        sizes.add_column(heading, justify="right")
    for each in found.batches:
        fits = "yes" if each.fits else "no"
        sizes.add_row(f"{each.batch:,}", human_bytes(each.all_bytes), percent(each.extra), fits)
    return Group(table, Text(), sizes)


def _minimum(found: Figures) -> RenderableType:
    peak = found.minimum
    table = Table(title=f"Held at the minimum, while {peak.op} runs", title_justify="left")
    for heading, justify in (("bytes", "right"), ("tensors", "right"), ("module", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("line", overflow="ellipsis", no_wrap=True, max_width=44)
    if peak.workspace_bytes:
        table.add_row(human_bytes(peak.workspace_bytes), "", "", "workspace")
    for holder in peak.holders[:_HOLDERS]:
        table.add_row(
            human_bytes(holder.nbytes),
            str(holder.tensors),
            Text(holder.module),
            Text(holder.source),
        )
    rest = peak.holders[_HOLDERS:]
    if rest:
        table.add_row(
            human_bytes(sum(h.nbytes for h in rest)),
            str(sum(h.tensors for h in rest)),
            "",
            f"{len(rest)} other lines",
        )
    return table
