"""What every test starts from, and what is shown of one that fails."""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import sys
from pathlib import Path

import pytest

# No test plans by what another run left, here and in the processes that tests start.
os.environ["FXREMAT_CACHE"] = "off"

# Processes side by side share the cores, here and in what they start: where there are more threads
# than cores, most of the time goes into their waiting for one another.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    share = max(1, cores // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))

# A test that fails does so in every run: the same examples each time. The tests on a GPU use no
# hypothesis, and images for them lack it.
if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    settings.register_profile("same", derandomize=True, database=None)
    settings.load_profile("same")


def pytest_collection_finish() -> None:
    """No tracing for torch's own tools, which begins wherever its logger has a handler.

    pytest gives its own to each logger that doesn't propagate; the log level keeps them quiet.
    """
    if "torch" in sys.modules:
        trace = logging.getLogger("torch.__trace")
        trace.handlers.clear()
        trace.propagate = True


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """The same random numbers whichever tests run, and nothing compiled by an earlier one.

    The solvers' tests run without torch, and aren't made to load it.
    """
    random.seed(0)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        torch._dynamo.reset()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """Leaves torch's own frames out: forty of them lie between a test and a plan's error."""
    torch = sys.modules.get("torch")
    if call.excinfo is None or torch is None:
        return
    folder = Path(torch.__file__).parent
    frame = call.excinfo.tb
    while frame.tb_next is not None:
        inner = frame.tb_next
        # Where torch itself raises, its last frame says what was wrong.
        if inner.tb_next is not None and folder in Path(inner.tb_frame.f_code.co_filename).parents:
            frame.tb_next = inner.tb_next
        else:
            frame = inner
