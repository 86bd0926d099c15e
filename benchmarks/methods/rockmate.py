"""Rockmate (Zhao et al., ICML 2023), where it can be imported.

Its PyPI release names modules that it doesn't ship, so an import fails there and the row says so.
"""

from __future__ import annotations

from benchmarks.methods.base import Method, Prepared, Task, Unavailable

POINTS = ("0.5",)


def prepare(task: Task) -> Prepared:
    try:
        from rockmate import Rockmate  # type: ignore[import-not-found]
    except Exception as error:  # whatever its import raises is the reason
        raise Unavailable(f"rockmate can't be imported: {error}") from error
    from benchmarks.measure import Step, step_peak

    batch = task.workload.batch(0)
    peak = step_peak(Step(task.step, task.step), batch, task.workload.device)
    return Prepared(Rockmate(task.step, batch, float(task.point) * peak))


METHODS = (Method("rockmate", "Rockmate at a budget", prepare, POINTS),)
