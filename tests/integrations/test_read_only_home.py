"""A process whose home can't be written plans and trains as any other.

torch itself needs a place for its caches, by default in the temporary folder.
"""

from __future__ import annotations

import os
import subprocess
import sys

STEP = """
import torch
import fxremat

layers = [torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU()) for _ in range(4)]
model = torch.nn.Sequential(*layers)
x = torch.randn(64, 32)
model(x).sum().backward()
expected = [parameter.grad for parameter in model.parameters()]
model.zero_grad()
optimized = fxremat.optimize(model, budget=0.8, solver="greedy")
optimized(x).sum().backward()
assert all(map(torch.equal, expected, (p.grad for p in model.parameters())))
print(fxremat.explain(optimized).extra_seconds > 0)
"""
# Not even root can make a folder there.
NOWHERE = "/proc/self/nowhere"
CACHES = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR")


def test_nothing_can_be_cached() -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    # Where plans are kept by default.
    environment = {key: value for key, value in os.environ.items() if key != "FXREMAT_CACHE"}
    done = subprocess.run(
        [sys.executable, "-c", STEP],
        env={**environment, **dict.fromkeys(CACHES, NOWHERE), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "True\n"
    assert "Error" not in done.stderr
    assert done.stderr.count("cache is no use") == 1
