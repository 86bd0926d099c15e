"""The rows of a run: JSON lines, one a cell, appended as cells end, so that a run can resume."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
FILE = "rows.jsonl"


def load(folder: Path, file: str = FILE) -> dict[str, Row]:
    """The last row of every cell, by key. A line cut off by a kill is passed over."""
    rows: dict[str, Row] = {}
    path = folder / file
    if not path.exists():
        return rows
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["key"]] = row
    return rows


def append(folder: Path, row: Row, file: str = FILE) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / file).open("a+b") as out:
        if out.tell():
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":  # a line that a kill cut off must not swallow this one
                out.write(b"\n")
        out.write(json.dumps(row).encode() + b"\n")


def compact(folder: Path, file: str = FILE) -> None:
    """Keeps one line a cell, the last."""
    rows = load(folder, file)
    if rows:
        text = "".join(json.dumps(row) + "\n" for row in rows.values())
        temporary = folder / (file + ".new")
        temporary.write_text(text)
        temporary.replace(folder / file)


def told(words: Sequence[str]) -> list[str]:
    """What a command was told, but for `--out`: where rows were written is no fact about them."""
    return [
        word
        for k, word in enumerate(words)
        if word != "--out" and (k == 0 or words[k - 1] != "--out")
    ]


def find(rows: Iterable[Row], **wanted: Any) -> Row | None:
    """The first row with these fields, among those that worked."""
    for row in rows:
        if row["status"] == "ok" and all(row.get(k) == v for k, v in wanted.items()):
            return row
    return None


def environment(threads: int) -> dict[str, Any]:
    """What every row says about where it was measured."""
    packages = ("torch", "transformers", "diffusers", "fxremat", "highspy", "pulp", "numpy")
    versions: dict[str, str] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "from source" if package == "fxremat" else "missing"
    return {
        "versions": {"python": platform.python_version(), **versions},
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()},
        "threads": threads,
    }


def processor() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
