"""The page of the sweep, from the kept rows: how many models come out how, and which.

python -m benchmarks.sweep.table [--rows benchmarks/results/sweep] [--into docs/models.md]
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.marks import show
from benchmarks.sweep import outcomes

KEPT = Path("benchmarks/results/sweep")
BEGIN, END = "<!-- sweep: begin -->", "<!-- sweep: end -->"
Rows = Sequence[Mapping[str, Any]]
_EAGER, _GRAPH = "ok, eager's bits", "ok, the bits of AOTAutograd's graph"
# torch's tracing leaves out a dropout whose result nothing uses: eager draws for it.
_DRAWS = "ok, the bits of AOTAutograd's graph, which draws other random numbers than eager"
_GOOD = (_EAGER, _GRAPH, _DRAWS)


def text(rows: Rows) -> str:
    """Counts, figures, and every model by what came of it."""
    parts = [_origin(rows), counts(rows), _figures(rows)]
    for group, found in by_group(rows).items():
        listed = _by_source(found) if group in _GOOD else _by_reason(found)
        parts.append(f"### {group[0].upper()}{group[1:]}\n\n{listed}")
    return "\n\n".join(part for part in parts if part)


def by_group(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by outcome, those that are ok by whose bits they have, in the table's order."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[_group(row)].append(row)
    order = (*_GOOD, *outcomes.ALL)
    return {group: found[group] for group in order if group in found}


def _group(row: Mapping[str, Any]) -> str:
    if row["outcome"] != outcomes.OK:
        return row["outcome"]
    if row["reference"] == "eager":
        return _EAGER
    return _GRAPH if row["against_eager"]["rng_equal"] else _DRAWS


def counts(rows: Rows) -> str:
    """A line an outcome, a column a source."""
    sources = sorted({_source(row) for row in rows})
    lines = [
        "| outcome | " + " | ".join(sources) + " | all |",
        "|---|" + "---|" * (len(sources) + 1),
    ]
    for group, found in by_group(rows).items():
        lines.append(_line(group, found, sources))
    built = [row for row in rows if row["outcome"] != outcomes.NOT_BUILT]
    lines.append(_line("**all that were built**", built, sources))
    return "\n".join(lines)


def _line(name: str, rows: Rows, sources: Sequence[str]) -> str:
    numbers = [sum(_source(row) == source for row in rows) for source in sources]
    return f"| {name} | " + " | ".join(str(n or "") for n in (*numbers, len(rows))) + " |"


def _origin(rows: Rows) -> str:
    dates = sorted(row["date"][:10] for row in rows)
    commits = sorted({row["commit"][:7] for row in rows})
    versions = rows[-1]["versions"]
    libraries = {**versions, "timm": rows[-1].get("timm", "missing")}
    named = ", ".join(f"{n} {libraries[n]}" for n in ("torch", "transformers", "diffusers", "timm"))
    machine = rows[-1]["machine"]
    return (
        f"{dates[0]} to {dates[-1]}, commits {', '.join(commits)}; {named}; "
        f"{machine['processor']}, one thread."
    )


def _figures(rows: Rows) -> str:
    good = [row for row in rows if row["outcome"] == outcomes.OK]
    if not good:
        return ""
    same = sum(row["measured_bytes"] == row["planned_bytes"] for row in good)
    lowest = min(row["measured_bytes"] / row["planned_bytes"] for row in good)
    recomputed = sum(row["recomputed"] > 0 for row in good)
    floor = sum(row["budget_bytes"] == row["floor_bytes"] for row in good)
    planning = statistics.median(row["planning_s"] for row in good)
    return (
        f"Of the {len(good)} that are ok, {recomputed} recompute something, and {floor} ran at "
        f"their floor, which is above 0.6 of the step. The measured peak is the planned one to the "
        f"byte in {same}, and at least {lowest:.1%} of it in all. Planning took "
        f"{planning:.1f} s in the median."
    )


def _by_source(rows: Rows) -> str:
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        found[_source(row)].append(_own(row))
    return "\n".join(f"- {source}: {_names(names)}" for source, names in sorted(found.items()))


def _by_reason(rows: Rows) -> str:
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        found[_reason(row)].append(row["key"])
    ranked = sorted(found.items(), key=lambda item: -len(item[1]))
    return "\n".join(f"- {_names(names)}: {reason}" for reason, names in ranked)


def _reason(row: Mapping[str, Any]) -> str:
    """Why, in a line; of what torch refuses or fails at, torch's own words."""
    said = " ".join(str(row.get("torch") or row.get("reason", "")).split())
    return _first_sentences(said).replace("|", "/").replace("`", "'")[:200].rstrip()


def _first_sentences(said: str) -> str:
    """Dynamo's messages: what it can't do and the first sentence of why; others as they are."""
    what, found, why = said.partition(" Explanation: ")
    if not found:
        return said
    what = what.removeprefix("Unsupported: ")
    why = why.partition(" (e.g.")[0]
    return f"{what}: {why.partition('. ')[0].partition(' Hint:')[0]}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _source(row: Mapping[str, Any]) -> str:
    return row["key"].partition("/")[0]


def _own(row: Mapping[str, Any]) -> str:
    return row["key"].partition("/")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=KEPT)
    parser.add_argument("--into", type=Path)
    args = parser.parse_args()
    show(text(list(records.load(args.rows).values())), args.into, BEGIN, END)


if __name__ == "__main__":
    main()
