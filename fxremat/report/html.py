"""A report as one page that needs nothing else: timeline, front and table, with what is alive."""

from __future__ import annotations

import html
import json
from dataclasses import astuple
from importlib import resources
from typing import Any

from fxremat.report.figures import Figures
from fxremat.report.orders import Order
from fxremat.report.text import human_bytes, summary_of


def page_of(report: Figures) -> str:
    """The page."""
    template = resources.files("fxremat.report").joinpath("page.html").read_text(encoding="utf-8")
    # "</" would end the script that the data lie in.
    data = json.dumps(_data(report)).replace("</", "<\\/")
    return (
        template.replace("__SUMMARY__", _summary(report))
        .replace("__NOTES__", "".join(f"<p class=note>{_text(n)}</p>" for n in report.notes))
        .replace("__ROWS__", _rows(report))
        .replace("__HOLDERS__", _holders(report))
        .replace("__DATA__", data)
    )


def _data(report: Figures) -> dict[str, Any]:
    timelines = report.timelines
    return {
        "budget": report.budget_bytes,
        "baseline_seconds": report.baseline_seconds,
        "values": [astuple(value) for value in timelines.values],
        "orders": [_order(timelines.baseline), _order(timelines.planned)],
        "front": [astuple(point) for point in report.front],
        "here": [report.planned_peak_bytes, report.extra_seconds],
    }


def _order(order: Order) -> dict[str, Any]:
    return {
        "label": order.label,
        "ops": order.ops,
        "again": [int(again) for again in order.again],
        "bytes": order.nbytes,
        "workspace": order.workspace_bytes,
        "boundary": order.boundary,
        "spans": [astuple(span) for span in order.spans],
    }


def _summary(report: Figures) -> str:
    return "".join(
        f"<tr><th>{_text(label)}</th><td class=n>{_text(figure)}</td><td>{_text(remark)}</td></tr>"
        for label, figure, remark in summary_of(report)
    )


def _rows(report: Figures) -> str:
    return "".join(
        f"<tr><td>{_text(row.module).replace('.', '.<wbr>')}</td>"
        f"<td><code>{_text(row.source)}</code></td>"
        f"<td class=n>{row.layers}</td><td class=n>{_bytes(row.kept_bytes)}</td>"
        f"<td class=n>{_bytes(row.recomputed_bytes)}</td><td class=n>{row.runs or ''}</td>"
        f"<td class=n>{f'{1e3 * row.recomputed_seconds:.3f}' if row.runs else ''}</td>"
        f"<td>{_text(row.policy)}</td></tr>"
        for row in report.rows
    )


def _holders(report: Figures) -> str:
    return "".join(
        f"<tr><td><code>{_text(what)}</code></td><td class=n>{human_bytes(nbytes)}</td></tr>"
        for what, nbytes in report.holders
    )


def _bytes(nbytes: int) -> str:
    return human_bytes(nbytes) if nbytes else ""


def _text(text: object) -> str:
    return html.escape(str(text))
