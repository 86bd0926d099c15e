"""A plan as a trace that ui.perfetto.dev and chrome://tracing open: JSON, no pickle.

Two processes, the order with nothing recomputed and the planned one; in each a track of operations,
as long as they are predicted to take, and a counter of the step memory.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

from fxremat.plan.plan import Plan
from fxremat.report.orders import Order, timelines_of

# In microseconds, as the format counts: what takes no time is shown, too.
_LEAST = 0.01


def trace_of(plan: Plan) -> str:
    """The trace's document."""
    timelines = timelines_of(plan)
    events: list[dict[str, Any]] = []
    for process, order in enumerate((timelines.baseline, timelines.planned), 1):
        events += _events(process, order)
    about = {"budget_bytes": plan.budget_bytes, "times": "predicted"}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about})


def _events(process: int, order: Order) -> Generator[dict[str, Any], None, None]:
    common = {"pid": process, "tid": 1}
    yield {**common, "ph": "M", "name": "process_name", "args": {"name": order.label}}
    now = 0.0
    steps = zip(order.ops, order.again, order.seconds, order.nbytes, strict=True)
    for step, (op, again, seconds, nbytes) in enumerate(steps):
        part = "forward" if step < order.boundary else "backward"
        yield {
            **common,
            "ph": "X",
            "name": op,
            "cat": f"{part}, recomputed" if again else part,
            "ts": now,
            "dur": max(_LEAST, 1e6 * seconds),
            "args": {"step": step, "bytes": nbytes, "recomputed": again},
        }
        yield {**common, "ph": "C", "name": "step memory", "ts": now, "args": {"bytes": nbytes}}
        now += max(_LEAST, 1e6 * seconds)
