"""The cache's folder, and how documents get in and out of it.

``FXREMAT_CACHE=off`` in the environment leaves it alone, ``FXREMAT_CACHE=/path`` puts it elsewhere;
by default it is where the system keeps the user's caches. A document is written to a file of its
own first and then put in place at once, so that no other process ever reads half of one. Nothing
here may stop a training: what can't be read or written is warned of, once, and done without.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fxremat.errors import OptionError

VARIABLE = "FXREMAT_CACHE"
_OFF = ("off", "0", "false", "no")
# In the folder's path: documents of another form lie beside these.
_FORM = "form-1"
# How many documents of a kind there may be; then the oldest quarter makes room.
_MOST = 2000

_Document = TypeVar("_Document")
_said: set[str] = set()


def folder() -> Path | None:
    """Where documents lie; None where the cache is off, or there is no place for one."""
    told = os.environ.get(VARIABLE, "").strip()
    if told.lower() in _OFF:
        return None
    if told:
        return Path(told).expanduser() / _FORM
    try:
        # Only who has a cache needs it, and training works where it is missing.
        platformdirs: Any = importlib.import_module("platformdirs")
        return Path(platformdirs.user_cache_dir("fxremat", appauthor=False)) / _FORM
    except (ImportError, OSError, RuntimeError) as error:
        _say(f"there is no folder for a cache ({error})")
        return None


def read(kind: str, key: str, parse: Callable[[bytes], _Document]) -> _Document | None:
    """The document of that kind and key, as `parse` reads it; None without a sound one."""
    place = folder()
    if place is None:
        return None
    path = place / kind / f"{key}.json"
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None  # Writing says so.
    except (OSError, ValueError, RecursionError) as error:
        _say(f"{path} can't be read ({_reason(error)})")
        return None


def write(kind: str, key: str, document: bytes) -> None:
    """Put a document in its place, or in that of an older one."""
    place = folder()
    if place is None:
        return
    where = place / kind
    try:
        where.mkdir(parents=True, exist_ok=True)
        _make_room(where)
        with tempfile.NamedTemporaryFile(dir=where, suffix=".part", delete=False) as part:
            part.write(document)
        os.replace(part.name, where / f"{key}.json")
    except OSError as error:
        _say(f"{where} can't be written to ({_reason(error)})")


def damaged(kind: str, key: str, why: str) -> None:
    """Say that a document, which could be read, is of no use."""
    place = folder()
    if place is not None:
        _say(f"{place / kind / key}.json is damaged ({why})")


def documents() -> list[Path]:
    """The files of all documents."""
    place = folder()
    return [] if place is None else sorted(path for path in place.glob("*/*") if path.is_file())


def clear() -> int:
    """Remove all documents; how many there were. Raises `OptionError` where that fails."""
    removed = 0
    for path in documents():
        if path.suffix in (".json", ".part"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OptionError(f"{path} can't be removed: {_reason(error)}") from error
            removed += 1
    return removed


def _make_room(where: Path) -> None:
    files = [entry for entry in os.scandir(where) if entry.is_file()]
    if len(files) < _MOST:
        return
    ages: list[tuple[float, str]] = []
    for entry in files:
        with suppress(FileNotFoundError):  # Another process makes room, too.
            ages.append((entry.stat().st_mtime, entry.path))
    for _, path in sorted(ages)[: _MOST // 4]:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _say(what: str) -> None:
    """Warn, once a process: whatever else goes wrong with the cache has the same way out."""
    if not _said:
        _said.add(what)
        warnings.warn(
            f"fxremat's cache is no use: {what}. Steps are timed and planned as if there were "
            f"none. `fxremat cache clear` empties it, {VARIABLE}=/path puts it elsewhere, "
            f"{VARIABLE}=off does without",
            stacklevel=3,
        )
