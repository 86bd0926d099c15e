"""An estimate as one page of HTML that needs nothing else: figures, the front as a plot, tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fxremat.estimate.record import Figures, Point
from fxremat.estimate.text import examples_a_second, percent, seconds, verdict
from fxremat.report.explain import human_bytes

_WIDTH, _HEIGHT = 760, 360
_LEFT, _BOTTOM, _TOP, _RIGHT = 64, 44, 16, 16
_TICKS = 5

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;margin:2rem auto;
max-width:60rem;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .75rem;border-bottom:1px solid #e4e7eb;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.no{color:#9aa5b1}code{font-size:.85em}li{margin:.3rem 0}
svg text{font:12px system-ui,sans-serif;fill:#52606d}
.bar{display:flex;height:1.6rem;border-radius:4px;overflow:hidden;background:#e4e7eb}
.bar span{display:block}.key span{margin-right:1.2rem;white-space:nowrap}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
"""

_COLORS = ("#1f6fb2", "#5a9bd4", "#9aa5b1", "#e0a030", "#c0392b")


def page(found: Figures) -> str:
    """The whole document."""
    title = f"Estimate for {found.device.name}: {verdict(found)}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _summary(found),
        "<h2>Memory at the step's peak</h2>",
        _bar(found),
        "<h2>Budget against extra time</h2>",
        plot(found),
        _front(found),
    ]
    if found.largest:
        parts += ["<h2>Batch sizes</h2>", _largest(found), _sizes(found)]
    parts += ["<h2>Held at the minimum</h2>", _minimum(found), "<h2>How far to trust this</h2>"]
    parts += ["<ul>", *(f"<li>{escape(note)}</li>" for note in found.notes), "</ul>"]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: int, dim: Sequence[bool] = ()
) -> str:
    """The first `numbers` columns are figures; rows that are `dim` are greyed."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if k < numbers else ''}>{escape(value)}</{tag}>"
            for k, value in enumerate(values)
        )

    lines = [f"<tr>{cells('th', headings)}</tr>"] if any(headings) else []
    for k, row in enumerate(rows):
        grey = " class=no" if k < len(dim) and dim[k] else ""
        lines.append(f"<tr{grey}>{cells('td', row)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _summary(found: Figures) -> str:
    spec, own = found.device, found.resident
    batch = "" if found.batch is None else f"batch of {found.batch}, "
    kernels = ", ".join(f"{count} x {name}" for name, count in found.kernels)
    rows = [
        ("Device", f"{spec.name}: {spec.source}"),
        (
            "Usable memory",
            f"{human_bytes(spec.usable_bytes)} of {human_bytes(spec.capacity_bytes)}",
        ),
        (
            "Held beside the step",
            f"{human_bytes(own.parameter_bytes)} parameters, "
            f"{human_bytes(own.optimizer_bytes)} state of {found.optimizer}, "
            f"{human_bytes(own.buffer_bytes + own.input_bytes)} buffers and inputs",
        ),
        (
            "Step, nothing recomputed",
            f"{human_bytes(found.peak_bytes)}, {human_bytes(own.gradient_bytes)} of it gradients",
        ),
        ("Step, at the least", f"{human_bytes(found.floor_bytes)} at {found.points[0].extra:+.1%}"),
        (
            "Optimizer's step",
            f"{human_bytes(own.optimizer_step_bytes)}, gradients and what it takes meanwhile: "
            + ("fits" if found.optimizer_fits else "too much"),
        ),
        (
            "Time of a step",
            f"{seconds(found.step_seconds)}, modelled; kernels {seconds(found.kernel_seconds)}; "
            f"{batch}{found.operations} ops, mostly {found.dtype}",
        ),
    ]
    if kernels:
        rows.append(("Kernels of the device", kernels))
    return _table(("", ""), rows, 0)


def _bar(found: Figures) -> str:
    """What fills the device under the plan that was chosen."""
    own = found.resident
    point = found.at_budget or found.points[0]
    gradients = min(own.gradient_bytes, point.step_bytes)
    shares = [
        ("parameters", own.parameter_bytes),
        ("optimizer state", own.optimizer_bytes),
        ("buffers and inputs", own.buffer_bytes + own.input_bytes),
        ("gradients", gradients),
        ("rest of the step", point.step_bytes - gradients),
    ]
    total = max(found.device.usable_bytes, sum(nbytes for _, nbytes in shares))
    bars, key = "", ""
    for (label, nbytes), color in zip(shares, _COLORS, strict=True):
        text = f"{label}: {human_bytes(nbytes)}"
        bars += (
            f"<span style='width:{100 * nbytes / total:.3f}%;background:{color}' "
            f"title='{text}'></span>"
        )
        key += f"<span><i style='background:{color}'></i>{text}</span>"
    return f"<div class=bar>{bars}</div><p class=key>{key}</p>"


def plot(found: Figures) -> str:
    """The front and its bounds over memory, as SVG; what the device has left is a line."""
    points = found.points
    most = max(point.step_bytes for point in points) * 1.05
    left = found.device.usable_bytes - found.resident.nbytes
    highest = max(max(point.extra for point in points) * 1.1, 0.01)

    def x(nbytes: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * nbytes / most

    def y(extra: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * extra / highest

    shapes: list[str] = []
    for k in range(_TICKS + 1):
        nbytes, extra = most * k / _TICKS, highest * k / _TICKS
        anchor = "end" if k == _TICKS else "middle"
        shapes.append(
            f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y(extra):.1f}' y2='{y(extra):.1f}' "
            "stroke='#e4e7eb'/>"
            f"<text x='{_LEFT - 8}' y='{y(extra) + 4:.1f}' text-anchor='end'>{extra:.0%}</text>"
            f"<text x='{x(nbytes):.1f}' y='{_HEIGHT - _BOTTOM + 18}' text-anchor='{anchor}'>"
            f"{human_bytes(nbytes)}</text>"
        )
    shapes.append(
        f"<text x='{(_LEFT + _WIDTH) / 2:.0f}' y='{_HEIGHT - 6}' text-anchor='middle'>"
        "step memory; extra time above, lower bound dashed</text>"
    )
    if 0 < left < most:
        shapes.append(
            f"<line x1='{x(left):.1f}' x2='{x(left):.1f}' y1='{_TOP}' y2='{_HEIGHT - _BOTTOM}' "
            "stroke='#c0392b' stroke-dasharray='2 3'/>"
            f"<text x='{x(left) + 4:.1f}' y='{_TOP + 10}' style='fill:#c0392b'>device</text>"
        )

    def line(value: Sequence[tuple[float, float]], style: str) -> str:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in value)
        return f"<polyline points='{path}' fill='none' {style}/>"

    bounds = [(p.step_bytes, p.bound) for p in points if p.bound is not None]
    shapes.append(line(bounds, "stroke='#9aa5b1' stroke-dasharray='5 4'"))
    shapes.append(
        line([(p.step_bytes, p.extra) for p in points], "stroke='#1f6fb2' stroke-width='2'")
    )
    shapes += [_dot(point, x(point.step_bytes), y(point.extra)) for point in points]
    return f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img'>{''.join(shapes)}</svg>"


def _dot(point: Point, x: float, y: float) -> str:
    bound = "" if point.bound is None else f", at the least {percent(point.bound)}"
    text = f"{human_bytes(point.step_bytes)}: {point.extra:+.1%}{bound}"
    fill = "#1f6fb2" if point.fits else "#ffffff"
    return (
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{fill}' stroke='#1f6fb2'>"
        f"<title>{text}</title></circle>"
    )


def _front(found: Figures) -> str:
    points = list(reversed(found.points))
    rows = [
        (
            human_bytes(point.step_bytes),
            human_bytes(point.all_bytes),
            f"{point.extra:+.1%}",
            percent(point.bound),
            "fits" if point.fits else "doesn't fit",
        )
        for point in points
    ]
    headings = ("step memory", "all memory", "extra time", "bound", "")
    return _table(headings, rows, 4, [not point.fits for point in points])


def _largest(found: Figures) -> str:
    rows = [
        (
            f"{cap:+.0%}",
            "none" if size is None else f"{size.batch:,}",
            examples_a_second(size),
        )
        for cap, size in found.largest
    ]
    return _table(("extra time up to", "largest batch", "examples a second"), rows, 3)


def _sizes(found: Figures) -> str:
    rows = [
        (
            f"{each.batch:,}",
            human_bytes(each.all_bytes),
            percent(each.extra),
            "fits" if each.fits else "doesn't fit",
        )
        for each in found.batches
    ]
    headings = ("batch", "all memory", "extra time", "")
    return _table(headings, rows, 3, [not each.fits for each in found.batches])


def _minimum(found: Figures) -> str:
    peak = found.minimum
    rows = [
        (human_bytes(each.nbytes), str(each.tensors), each.module, each.source)
        for each in peak.holders
    ]
    if peak.workspace_bytes:
        rows.insert(0, (human_bytes(peak.workspace_bytes), "", "", "workspace"))
    return f"<p>While <code>{escape(peak.op)}</code> runs:</p>" + _table(
        ("bytes", "tensors", "module", "line"), rows, 2
    )
