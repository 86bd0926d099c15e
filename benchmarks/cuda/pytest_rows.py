"""A pytest plugin: a row a test as it ends; tests that have a final row are left out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import records
from benchmarks.cuda.states import FINISHED, RESTART, is_sticky

if TYPE_CHECKING:
    from benchmarks.cuda.worker import Spec


class RowsPlugin:
    """Also ends the session once the part's time is over."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.reports: dict[str, list[pytest.TestReport]] = {}

    def keep(self, key: str, row: Mapping[str, Any]) -> None:
        row = {**row, "key": key, "part": self.spec.part}
        records.append(Path(self.spec.folder), row, self.spec.file)

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        rows = records.load(Path(self.spec.folder), self.spec.file)
        done = [i for i in items if rows.get(i.nodeid, {}).get("status") in FINISHED]
        for item in items:
            if item.nodeid not in rows:
                self.keep(item.nodeid, {"status": "waiting"})
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item not in done]

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """True would say that the test has been run; it says that none of it is."""
        if time.time() > self.spec.stop_at:
            item.session.shouldstop = "the part's time is over"
            return True
        self.keep(item.nodeid, {"status": "running", "since": time.time()})
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        reports = self.reports.setdefault(report.nodeid, [])
        reports.append(report)
        if report.when == "teardown":
            row = row_of(reports)
            self.keep(report.nodeid, row)
            if is_sticky(row.get("reason", "")):
                os._exit(RESTART)


def row_of(reports: list[pytest.TestReport]) -> dict[str, Any]:
    """The row of a test from the reports of its phases; what it recorded is beside its outcome."""
    figures = {name: value for report in reports for name, value in report.user_properties}
    row: dict[str, Any] = {
        "status": "ok",
        "figures": figures,
        "wall_s": round(sum(report.duration for report in reports), 1),
    }
    for report in reports:
        if report.failed:
            return {**row, "status": "failed", "reason": report.longreprtext[-1500:]}
        if report.skipped:
            skipped: Any = report.longrepr
            reason = skipped[2] if isinstance(skipped, tuple) else str(skipped)
            return {**row, "status": "unavailable", "reason": reason.removeprefix("Skipped: ")}
    return row
