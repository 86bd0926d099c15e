"""The line on a terminal: only there, only where planning takes long, and gone at its end."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

import fxremat
from fxremat.pipeline import progress
from fxremat.pipeline.progress import Say, shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def waited_for(out: Terminal, text: str) -> bool:
    """Whether a text comes within some seconds."""
    stop = time.monotonic() + 20
    while text not in out.getvalue() and time.monotonic() < stop:
        time.sleep(0.002)
    return text in out.getvalue()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    out = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=out))
    monkeypatch.setattr(progress, "_QUIET_S", 0.001)
    monkeypatch.setattr(progress, "_EVERY_S", 0.001)
    return out


def test_it_says_what_goes_on(terminal: Terminal) -> None:
    with shown("reading the graph") as look:
        assert waited_for(terminal, "fxremat: reading the graph (0 s)")
        state = object()
        assert look("lower", state, 0.0) is state  # type: ignore[arg-type]
        assert waited_for(terminal, "searching for a plan")
    assert terminal.getvalue().endswith("\r\x1b[K"), "the line is taken away"


def test_an_estimate_says_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    @contextmanager
    def listening(doing: str) -> Generator[Say, None, None]:
        heard.append(doing)
        yield heard.append

    monkeypatch.setattr(sys.modules["fxremat.estimate.estimate"], "said", listening)
    model, x = torch.nn.Linear(8, 8), torch.zeros(4, 8)
    fxremat.estimate(model, x, device="l4", points=2, time_limit_s=1.0)
    assert heard[0] == "tracing the step"
    assert {"planning budget 1 of 2", "looking for the largest batch"} <= set(heard)


def test_an_error_takes_it_away(terminal: Terminal) -> None:
    def fail() -> None:
        with shown("reading the graph"):
            assert waited_for(terminal, "reading")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_what_is_short_shows_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_QUIET_S", 60.0)
    with shown("reading the graph"):
        pass
    assert terminal.getvalue() == ""


def test_what_is_no_terminal_shows_nothing(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    with shown("reading the graph"):
        time.sleep(0.02)
    assert terminal.getvalue() == ""
