"""One model in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import os
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch._dynamo.config

from benchmarks.sweep.check import check
from fxremat import torch_hooks


def report(module: str, name: str, answer: Connection, log: Path, executor: str) -> None:
    """Sends the row of the model that the source `module` makes; what is printed goes to `log`."""
    with log.open("wb") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    torch.set_num_threads(1)
    torch._dynamo.config.allow_rnn = True  # nn.RNN, nn.GRU and nn.LSTM are graph breaks otherwise
    torch_hooks.ignore_log_calls()  # of what fxremat is compared with: they break graphs, too
    declare_torchvision()
    source = importlib.import_module(module)
    answer.send(check(lambda: source.make(name), executor=executor))


def declare_torchvision() -> None:
    """Lets torchvision be imported where its kernels, built for CUDA, don't load.

    timm imports it, and transformers does where it is there. Their models use no kernel of it;
    its Python only needs two operators to be known.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for op in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):
                torch.library.define(f"torchvision::{op}", arguments)
