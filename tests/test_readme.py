"""The README's Python runs as it is printed, block after block, as one script.

Only smaller: its GPT-2 takes half a minute.
"""

from __future__ import annotations

import re
import runpy
import warnings
from pathlib import Path

import pytest

from fxremat.errors import UnplannedStepWarning

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SMALLER = {"n_layer=4": "n_layer=1, n_embd=64, n_head=2", "(2, 256)": "(2, 32)"}
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_every_block_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    script = tmp_path / "readme.py"
    checks = [
        "assert model.transformer.wte.weight.grad is not None",
        "assert fxremat.explain(loss_fn).planned_peak_bytes > 0",
    ]
    printed = "\n".join([*BLOCKS, *checks])
    for size, smaller in SMALLER.items():
        assert size in printed
        printed = printed.replace(size, smaller)
    script.write_text(printed)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnplannedStepWarning)
        runpy.run_path(str(script))
    assert len(BLOCKS) == 3
    assert "extra time, predicted" in capsys.readouterr().out


def test_nothing_else_is_python() -> None:
    """A block that is not run says by its fence that it is no Python."""
    fences = re.findall(r"^```(\S*)$", README, re.MULTILINE)
    assert set(fences) <= {"", "python"}
