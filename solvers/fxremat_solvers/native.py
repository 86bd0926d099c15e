"""Loading the C kernel (``native.c``): compiled once with the system's C compiler, then cached.

Why C and not numba or numpy: the inner loop prices edits that touch a handful of values each, so
there is nothing to vectorise, and a solver that runs inside model compilation has no seconds to
spare for a JIT: `cc` takes about a second once per machine and loading takes a millisecond.
PyTorch's own compiler needs a C++ compiler on CPU and Triton a C compiler on CUDA, so where this
package is used one is there. Where none is, `load` returns None and the solvers fall back on
their Python parts (greedy, cuts, integer programming). ``FXREMAT_NATIVE=0`` asks for that.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fxremat_solvers.problem import RematProblem

_SOURCE = Path(__file__).with_name("native.c")
_FLAGS = ("-O2", "-shared", "-fPIC", "-ffp-contract=off")
_COMPILE_LIMIT_S = 120


class _Problem(ctypes.Structure):
    _fields_ = (
        ("n_ops", ctypes.c_int32),
        ("n_values", ctypes.c_int32),
        *((name, ctypes.POINTER(ctypes.c_int32)) for name in ("in_ptr", "in_idx")),
        *((name, ctypes.POINTER(ctypes.c_int32)) for name in ("out_ptr", "out_idx", "producer")),
        *((name, ctypes.POINTER(ctypes.c_double)) for name in ("bytes", "cost", "workspace")),
        *((name, ctypes.POINTER(ctypes.c_uint8)) for name in ("recomputable", "is_output")),
    )


class _Effort(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_double) for name in ("temperature_start", "temperature_end")),
        *(
            (name, ctypes.c_double)
            for name in ("price_start", "price_end", "price_up", "price_down")
        ),
        *((name, ctypes.c_double) for name in ("shift", "drop", "keep", "swap")),
        ("time_limit_s", ctypes.c_double),
        ("edits", ctypes.c_int64),
        ("lower_the_peak", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Effort:
    """How `anneal` searches: temperatures in units of cost, prices in cost per byte and step."""

    edits: int
    temperature: tuple[float, float]
    price: tuple[float, float]
    time_limit_s: float
    price_steps: tuple[float, float] = (1.05, 0.97)
    shift: float = 1.0
    drop: float = 1.0
    keep: float = 1.0
    swap: float = 1.0
    lower_the_peak: bool = False


class Kernel:
    """The compiled functions, for one problem. Holds the arrays that the C side points into."""

    def __init__(self, library: ctypes.CDLL, problem: RematProblem) -> None:
        self._library = library
        self._n_ops = len(problem.ops)
        resident = set(problem.inputs)
        reads = [[v for v in dict.fromkeys(op.inputs) if v not in resident] for op in problem.ops]
        makes = [list(op.outputs) for op in problem.ops]
        ends = set(problem.outputs) - resident
        in_ptr, in_idx = _csr(reads)
        out_ptr, out_idx = _csr(makes)
        self._arrays = (
            in_ptr,
            in_idx,
            out_ptr,
            out_idx,
            _ints(max(0, producer) for producer in problem.producer),
            _doubles(
                0 if v in resident else value.nbytes for v, value in enumerate(problem.values)
            ),
            _doubles(op.cost for op in problem.ops),
            _doubles(op.workspace_bytes for op in problem.ops),
            _flags(op.recomputable for op in problem.ops),
            _flags(v in ends for v in range(len(problem.values))),
        )
        self._problem = _Problem(len(problem.ops), len(problem.values), *self._arrays)

    def anneal(
        self, steps: Sequence[int], budget_bytes: int, effort: Effort, seed: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The best schedule found from `steps`, and how many moves were tried and taken."""
        settings = _Effort(
            *effort.temperature,
            *effort.price,
            *effort.price_steps,
            effort.shift,
            effort.drop,
            effort.keep,
            effort.swap,
            effort.time_limit_s,
            effort.edits,
            int(effort.lower_the_peak),
        )
        room = 2 * len(steps) + 8 * self._n_ops + 64
        found = (ctypes.c_int32 * room)()
        stats = (ctypes.c_int64 * 16)()
        length = self._library.fxremat_anneal(
            ctypes.byref(self._problem),
            _ints(steps),
            len(steps),
            ctypes.c_double(budget_bytes),
            ctypes.byref(settings),
            ctypes.c_uint64(seed),
            found,
            room,
            stats,
        )
        return tuple(found[:length]), tuple(stats)

    def self_check(self, steps: Sequence[int], budget_bytes: int, seed: int, edits: int) -> int:
        """Price and apply random edits; the first that was priced wrongly, or -1."""
        return self._library.fxremat_self_check(
            ctypes.byref(self._problem),
            _ints(steps),
            len(steps),
            ctypes.c_double(budget_bytes),
            ctypes.c_uint64(seed),
            ctypes.c_int64(edits),
        )


def kernel(problem: RematProblem) -> Kernel | None:
    """The compiled kernel for `problem`, or None where there is no C compiler."""
    library = load()
    return None if library is None else Kernel(library, problem)


@functools.cache
def load() -> ctypes.CDLL | None:
    """The compiled library; None where it can't be had. Compiles at most once per machine."""
    if os.environ.get("FXREMAT_NATIVE") == "0":
        return None
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        return None
    source = _SOURCE.read_bytes()
    key = hashlib.sha256(source + " ".join((compiler, *_FLAGS)).encode()).hexdigest()[:16]
    for folder in _cache_folders():
        target = folder / f"native-{key}.so"
        try:
            if not target.exists():
                _compile(compiler, target)
            return _declared(ctypes.CDLL(str(target)))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _cache_folders() -> tuple[Path, ...]:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(home) / "fxremat", Path(tempfile.gettempdir()) / f"fxremat-{os.getuid()}")


def _compile(compiler: str, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{target.parent} belongs to someone else")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        built = Path(scratch) / target.name
        subprocess.run(
            [compiler, *_FLAGS, str(_SOURCE), "-o", str(built), "-lm"],
            check=True,
            capture_output=True,
            timeout=_COMPILE_LIMIT_S,
        )
        built.replace(target)  # atomic: several ranks may compile at once


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.fxremat_anneal.restype = ctypes.c_int32
    library.fxremat_self_check.restype = ctypes.c_int64
    return library


def _ints(items: Iterable[int]) -> ctypes.Array[Any]:
    listed = list(items)
    return (ctypes.c_int32 * max(1, len(listed)))(*listed)


def _doubles(items: Iterable[float]) -> ctypes.Array[Any]:
    listed = list(items)
    return (ctypes.c_double * max(1, len(listed)))(*listed)


def _flags(items: Iterable[bool]) -> ctypes.Array[Any]:
    listed = list(items)
    return (ctypes.c_uint8 * max(1, len(listed)))(*listed)


def _csr(rows: list[list[int]]) -> tuple[ctypes.Array[Any], ctypes.Array[Any]]:
    pointers = [0]
    for row in rows:
        pointers.append(pointers[-1] + len(row))
    return _ints(pointers), _ints(v for row in rows for v in row)
