"""What is kept of a run: the kind of every case, added to what was kept before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.operators.summary import keep, kept_cases


def row(name: str, kind: str, commit: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "commit": commit, "reference": "eager", **more}


def test_runs_add_up(tmp_path: Path) -> None:
    first = [row("sin-float32-0", "ok", "a"), row("cos-float32-1", "refused", "a", reason="why")]
    keep([*first, row("x.y-float64-0", "crash", "a")], {"threads": 1}, tmp_path)
    keep([row("cos-float32-1", "ok", "b", reference="AOTAutograd")], {"threads": 1}, tmp_path)
    kept = json.loads((tmp_path / "by_op.json").read_text())
    assert kept["ops"]["cos"] == {"float32": {"1": "ok, AOTAutograd's bits"}}
    assert kept["about"]["total"] == {"ok": 1, "crash": 1, "ok, AOTAutograd's bits": 1}
    assert kept["about"]["commits"] == ["a", "b"]
    assert kept_cases(tmp_path) == {"sin-float32-0", "cos-float32-1", "x.y-float64-0"}
    (other,) = map(json.loads, (tmp_path / "not_ok.jsonl").read_text().splitlines())
    assert (other["name"], other["kind"]) == ("x.y-float64-0", "crash")
