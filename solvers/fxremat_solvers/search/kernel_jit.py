"""How the functions of the search kernel are compiled. Importing this module imports numba.

Python calls one function, which is cached on disk together with everything it calls: where the
cache has it, nothing else is compiled or loaded. The parts are compiled for it only.

`_nrt=False`: no function of the kernel allocates, so nothing has to count references to arrays.
That halves the time to compile and saves a third of the running time.
"""

# numba has no types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import hashlib
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])

_LOG = logging.getLogger("fxremat")
_LONG_S = 2.0  # to load what was compiled takes a tenth of it
_said: list[str] = []


def part(function: _Function) -> _Function:
    """A function that compiled functions call; it becomes part of their code."""
    return _jit(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def spliced(function: _Function) -> _Function:
    """A part with one large caller: put into its source, so as to be compiled only there."""
    return _jit(function, inline="always")


def compiled(function: _Function) -> _Function:
    """A function that Python calls. Cached, or where there is no place or no sound cache, anew."""
    # numba renews what it cached when the file of the function changes, but not when others do
    function.__qualname__ += f"_{_digest()}"
    try:
        cached = _jit(function, cache=True)
    except RuntimeError:
        return _jit(function)
    chosen: list[_Function] = []

    @functools.wraps(function)
    def call(*arguments: object) -> object:
        if chosen:
            return chosen[0](*arguments)
        # The first call reads the cache, and numba raises anything where that is damaged.
        with _said_if_compiled(lambda: bool(cast(Any, cached).stats.cache_misses)):
            try:
                result = cached(*arguments)
            except Exception:
                chosen.append(_jit(function))
                return chosen[0](*arguments)
        chosen.append(cached)
        return result

    return cast(_Function, call)


@contextmanager
def _said_if_compiled(compiles: Callable[[], bool]) -> Generator[None, None, None]:
    """Around a first call, which is said, once, where it compiles and takes long."""

    def say() -> None:
        if not _said and compiles():
            _said.append("compiling")
            _LOG.warning(
                "the search for plans is compiled, once on this machine: that takes some fifteen "
                "seconds"
            )

    timer = threading.Timer(_LONG_S, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _jit(function: _Function, **options: Any) -> _Function:
    njit: Any = numba.njit
    return njit(nogil=True, fastmath=False, error_model="numpy", _nrt=False, **options)(function)


def sources() -> list[Path]:
    """The files whose parts other files compile: a change of any of them compiles all anew."""
    return sorted(Path(__file__).parent.glob("kernel_*.py"))


def _digest() -> str:
    digest = hashlib.sha256()
    for source in sources():
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
