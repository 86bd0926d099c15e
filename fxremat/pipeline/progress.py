"""A line on the terminal that says what goes on, where planning takes longer than one waits."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from fxremat.pipeline.runner import Between, State

Say = Callable[[str], None]

# Planning that is shorter shows nothing.
_QUIET_S = 2.0
_EVERY_S = 0.5

# What goes on once a pass is over.
_AFTER: Mapping[str, str] = {
    "capture": "reading the graph",
    "units": "measuring its operations",
    "annotate": "making a problem of it",
    "classify": "making a problem of it",
    "lower": "searching for a plan",
    "solve": "writing the planned graphs",
    "rewrite": "checking them",
}


@dataclass
class _Line:
    """The line, and the thread that writes it again and again until `over`."""

    out: TextIO
    doing: str
    started: float = field(default_factory=time.monotonic)
    over: threading.Event = field(default_factory=threading.Event)

    def write(self) -> None:
        if self.over.wait(_QUIET_S):
            return
        while True:
            self._put(f"fxremat: {self.doing} ({time.monotonic() - self.started:.0f} s)")
            if self.over.wait(_EVERY_S):
                self._put("")
                return

    def _put(self, text: str) -> None:
        # From the line's begin, and nothing of what stood there.
        self.out.write(f"\r\x1b[K{text}")
        self.out.flush()


@contextmanager
def shown(doing: str) -> Generator[Between, None, None]:
    """Around some planning; what it gives stands between the passes, and hears which are over."""
    with said(doing) as say:

        def look(name: str, state: State, _seconds: float) -> State:
            if name in _AFTER:
                say(_AFTER[name])
            return state

        yield look


@contextmanager
def said(doing: str) -> Generator[Say, None, None]:
    """Around anything that may take long; what it gives says what goes on from then."""
    line = _Line(sys.stderr, doing)

    def say(text: str) -> None:
        line.doing = text

    if not sys.stderr.isatty():
        yield say
        return
    writer = threading.Thread(target=line.write, daemon=True)
    writer.start()
    try:
        yield say
    finally:
        line.over.set()
        writer.join()
