"""Fetches what a CUDA image may lack, for a machine without network.

    python -m benchmarks.cuda.wheels --out cuda-wheels [--groups core diffusers] [--python 3.12]

The wheels lie in a folder a group, since what can be carried to such a machine is often limited:
`core` is what fxremat needs beside torch and numpy, apart from the large ones (`search` is numba,
`science` scipy); `transformers` and `diffusers` are what the models of these need beside `core`.
Which packages an image has is found out there: `run --wheels` installs only what can't be used.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.cuda.install import package_of

# highspy and pulp as in pyproject.toml. Matplotlib is left out: nothing here draws.
GROUPS: dict[str, tuple[str, ...]] = {
    "core": (
        "pulp>=3.0,<5",
        "highspy>=1.11,<1.16",
        "msgspec>=0.19",
        "networkx>=3.5",
        "platformdirs>=4",
        "rich>=13",
        "pytest>=8",
        "pytest-timeout>=2.3",
    ),
    "transformers": ("transformers>=4.50",),
    "diffusers": ("diffusers>=0.30",),
    "search": ("numba>=0.61",),
    "science": ("scipy>=1.11",),
}
THERE = ("numpy", "torch")
"""What the image has, in the versions that belong to its driver: never carried."""

GLIBC = (35, 34, 31, 28, 27, 24, 17)  # the newest first: pip takes a wheel of any of them
CARRIED_MIB = 64
"""What many ways of carrying files to a machine without network allow; sums are shown beside it."""


def fetch(requirements: Iterable[str], folder: Path, python: str) -> str:
    """Downloads wheels with what they need; returns the end of what pip said where it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):  # two versions of one package can't both be installed
        old.unlink()
    platforms = [f"manylinux_2_{n}_x86_64" for n in GLIBC] + ["manylinux2014_x86_64"]
    words = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    words += ["-d", str(folder), *(word for name in platforms for word in ("--platform", name))]
    command = [sys.executable, "-m", "pip", "download", "-q", *words, *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for wheel in folder.glob("*.whl"):
        if package_of(wheel) in THERE:
            wheel.unlink()
    return done.stderr[-800:] if done.returncode else ""


def without_repeats(out: Path) -> None:
    """A group's wheels without what an earlier group has, which is carried along with it."""
    seen: set[str] = set()
    for group in GROUPS:
        wheels = list((out / group).glob("*.whl"))
        for wheel in wheels:
            if package_of(wheel) in seen:
                wheel.unlink()
        seen |= {package_of(wheel) for wheel in wheels}


def sizes(out: Path) -> dict[str, dict[str, int]]:
    """Bytes of every wheel, by group."""
    return {
        group: {wheel.name: wheel.stat().st_size for wheel in sorted((out / group).glob("*.whl"))}
        for group in GROUPS
        if (out / group).exists()
    }


def table(found: Mapping[str, Mapping[str, int]]) -> str:
    lines: list[str] = []
    for group, wheels in found.items():
        total = sum(wheels.values()) / 2**20
        note = "" if total < CARRIED_MIB else f", more than {CARRIED_MIB}"
        lines.append(f"{group}: {total:.1f} MiB in {len(wheels)} wheels{note}")
        lines += [f"  {nbytes / 2**20:6.1f}  {name}" for name, nbytes in wheels.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("cuda-wheels"))
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--python", default="3.12", help="the machine's Python")
    args = parser.parse_args()
    said = {group: fetch(GROUPS[group], args.out / group, args.python) for group in args.groups}
    without_repeats(args.out)
    print(table(sizes(args.out)))
    failed = {group: text for group, text in said.items() if text}
    for group, text in failed.items():
        print(f"{group}: {text}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
