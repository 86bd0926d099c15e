"""A function in two processes that train together, as torchrun would start them."""

from __future__ import annotations

import datetime
import logging
import multiprocessing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import fxremat


def on_two_ranks(function: Callable[[int], Any], folder: Path) -> tuple[Any, Any]:
    """What a function of a module returns on rank 0 and on rank 1 of a group of gloo."""
    # Forked from a process that has loaded all modules once, and stays for the next two ranks.
    multiprocessing.get_context("forkserver").set_forkserver_preload([function.__module__])
    mp.start_processes(_rank, (function, folder), nprocs=2, start_method="forkserver")
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
