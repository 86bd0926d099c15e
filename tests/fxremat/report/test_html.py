"""The page: all of it in one file, well formed, and drawn where there is a browser to look."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import fxremat
from fxremat.frontend.compiled import compiled_of
from fxremat.report.front import front_of
from tests.fxremat.report.models import factory

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
VOID = {"meta", "link", "br", "wbr"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, inputs = factory()
    optimized = fxremat.optimize(model, budget=0.6, solver="greedy", example_inputs=inputs)
    plan = compiled_of(optimized).backend.history.graphs[-1].plan
    report = fxremat.explain(optimized).with_front(front_of(plan, points=2, time_limit_s=2))
    path = tmp_path_factory.mktemp("page") / "plan.html"
    report.to_html(path)
    return path


class Structure(HTMLParser):
    """Which elements are open, and which were met with an id."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        self.outside += [given[name] or "" for name in ("src", "href") if name in given]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_one_well_formed_file(page: Path) -> None:
    structure = Structure()
    structure.feed(page.read_text())
    assert not structure.open
    assert not structure.outside
    assert {"summary", "timeline", "alive", "front", "rows", "holders", "data"} <= structure.ids
    assert "__" not in re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.DOTALL)


def test_its_data_are_the_plan(page: Path) -> None:
    (text,) = re.findall(r'id="data">(.*?)</script>', page.read_text(), flags=re.DOTALL)
    data = json.loads(text)
    baseline, planned = data["orders"]
    assert max(planned["bytes"]) <= data["budget"] < max(baseline["bytes"])
    assert sum(planned["again"]) == len(planned["ops"]) - len(baseline["ops"]) > 0
    assert all(0 <= begin <= end < len(planned["ops"]) for _, begin, end in planned["spans"])
    assert len(data["front"]) >= 2


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_draws_it(page: Path, tmp_path: Path) -> None:
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=3000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    drawn = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
    assert 'data-ready="yes"' in drawn, "the script ran to its end"
    assert len(re.findall(r'class="order"', drawn)) == 2
    assert 'class="budget"' in drawn
    alive = drawn[drawn.index('id="alive"') :]
    assert "planned, step" in alive
    assert "steps " in alive
    assert not re.search(r'id="front-part"[^>]*hidden', drawn)
    assert "NaN" not in drawn
    assert "undefined" not in drawn
