"""A function in two processes that train together, as torchrun would start them."""

from __future__ import annotations

import datetime
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import fxremat

EXAMPLES = Path(__file__).parents[2] / "examples"


def on_two_ranks(function: Callable[[int], Any], folder: Path) -> tuple[Any, Any]:
    """What a function of a module returns on rank 0 and on rank 1 of a group of gloo."""
    mp.spawn(_rank, (function, folder), nprocs=2)
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2))
    return first, second


def _rank(rank: int, function: Callable[[int], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    logging.getLogger("fxremat").setLevel(logging.ERROR)
    warnings.simplefilter("error", fxremat.UnplannedStepWarning)
    # Where one rank fails the other must not wait for ever.
    limit = datetime.timedelta(seconds=60)
    method = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=2, timeout=limit)
    try:
        torch.save(function(rank), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def example(script: str) -> Any:
    """One of the example scripts, as a module."""
    name = f"example_{script}"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dynamo looks its functions up there.
    spec.loader.exec_module(module)
    return module
