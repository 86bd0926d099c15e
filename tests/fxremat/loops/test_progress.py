"""Bars count each step once, however often it runs, and stop where a step fails."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

import fxremat
from fxremat.loops.progress import Bars


def test_a_bar_for_the_loop_and_one_for_its_reversal(capsys: pytest.CaptureFixture[str]) -> None:
    weight = torch.ones(3, requires_grad=True)
    final = fxremat.loop(lambda y, _: y * weight, torch.ones(3), steps=9, slots=1, progress=True)
    shown = capsys.readouterr().err
    assert "loop" in shown
    assert "9/9" in shown
    final.sum().backward()
    shown = capsys.readouterr().err
    assert "reversal" in shown
    assert "9/9" in shown


def test_an_error_ends_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    weight = torch.ones(3, requires_grad=True)

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        return y * weight if i < 2 else y[5]

    for _ in range(2):  # a second live display would be an error of rich's
        with pytest.raises(IndexError):
            fxremat.loop(step, torch.ones(3), steps=9, slots=1, progress=True)
    assert "2/9" in capsys.readouterr().err


def test_an_unknown_number_of_steps() -> None:
    text = io.StringIO()
    bars = Bars(Console(file=text))
    bars.begin("loop", None)
    bars.step()
    bars.end()
    bars.end()
    assert "1/?" in text.getvalue()
