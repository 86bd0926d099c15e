"""The README's Python runs as it is printed, block after block, as a script of its own.

Only smaller: its GPT-2 takes half a minute.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SMALLER = {"n_layer=4": "n_layer=1, n_embd=64, n_head=2", "(2, 256)": "(2, 32)"}
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_every_block_runs(tmp_path: Path) -> None:
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
    # As `python readme.py` would, from a clone that is not installed too.
    command = [sys.executable, str(script)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            map(str, (ROOT, ROOT / "solvers", os.environ.get("PYTHONPATH", "")))
        ),
    }
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "UnplannedStepWarning" not in ran.stderr
    assert len(BLOCKS) == 3
    assert "extra time, predicted" in ran.stdout


def test_nothing_else_is_python() -> None:
    """A block that is not run says by its fence that it is no Python."""
    fences = re.findall(r"^```(\S*)$", README, re.MULTILINE)
    assert set(fences) <= {"", "python"}
