"""What stands between the passes: the log, and a folder of readable files.

`logging.getLogger("fxremat")` gets one INFO line a pass. With ``FXREMAT_DUMP=folder`` in the
environment every compiled graph writes what each pass made of it to a folder of its own there.
"""

from __future__ import annotations

import itertools
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from fxremat.pipeline.runner import Between, State

_LOG = logging.getLogger("fxremat")


def log(name: str, state: State, seconds: float) -> State:
    """One line a pass."""
    if _LOG.isEnabledFor(logging.INFO):
        _LOG.info("%s: %s, %.2f s", name, state.summary(), seconds)
    return state


def check(_name: str, state: State, _seconds: float) -> State:
    """Raise `VerificationError` where a pass returned a state that contradicts itself."""
    state.check()
    return state


@dataclass
class Dump:
    """Writes what each pass adds, as files numbered in order, to a folder."""

    folder: Path
    last: State | None = None

    def __call__(self, name: str, state: State, _seconds: float) -> State:
        if state is self.last:
            return state
        self.last = state
        count = len(list(self.folder.iterdir()))
        for index, (file, text) in enumerate(state.files().items()):
            (self.folder / f"{count + index:02d}-{name}-{file}").write_text(text)
        return state


def observers() -> tuple[Between, ...]:
    """The log, and the dump of one more graph where the environment asks for it."""
    target = os.environ.get("FXREMAT_DUMP")
    if not target:
        return (log,)
    return (log, Dump(_next_folder(Path(target))))


def _next_folder(parent: Path) -> Path:
    """A new folder ``graph-N``, also beside other processes that make theirs."""
    for number in itertools.count(1):
        folder = parent / f"graph-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError
