"""Wrong gradients with the right loss: torch's `activation_memory_budget` under dropout.

    python -m benchmarks.budget_dropout

Small transformers with dropout take one step from one seed. torch's budget draws new dropout masks
when it recomputes (github.com/pytorch/pytorch/issues/190758), so that the gradients are those of no
loss; fxremat applies the masks of the forward. Everything is held against the same step without a
budget: eager's, or plain `torch.compile`'s. `off` is the norm of the gradients' difference over the
norm of the gradients: 1.4 is what two gradients that have nothing to do with each other have.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import fxremat
from benchmarks import records
from benchmarks.cuda.machine import commit
from benchmarks.marks import show
from benchmarks.measure import Step, relative_error, rng_state, step_peak
from benchmarks.methods.torch_budget import budgeted, eager_backend, inductor_backend

LAYERS, WIDTH, HEADS, WORDS, TEXTS, LENGTH = 4, 128, 4, 256, 4, 64
RATIO, SHARE = 0.5, 0.6
BEGIN, END = "<!-- budget dropout: begin -->", "<!-- budget dropout: end -->"


class Block(nn.Module):
    """A layer of GPT-2: dropout in the attention and behind both of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.before_mlp = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.before_attention(x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = heads.transpose(1, 3).unbind(2)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        mixed = F.dropout(weights, 0.1, self.training) @ v
        x = x + F.dropout(self.out(mixed.transpose(1, 2).flatten(2)), 0.1, self.training)
        return x + self.mlp(self.before_mlp(x))


class Transformer(nn.Module):
    """The model with its loss inside."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.layers(self.words(ids)))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def measure(executor: str) -> list[dict[str, Any]]:
    """The rows of plain, torch's budget and fxremat, run by an executor."""
    compiled = functools.partial(torch.compile, fullgraph=True, dynamic=False)
    backend = eager_backend() if executor == "eager" else inductor_backend()
    torch.manual_seed(0)
    model = Transformer()
    batch = (torch.randint(WORDS, (TEXTS, LENGTH)),)
    ways: dict[str, Callable[[nn.Module, int], Any]] = {
        "plain": lambda m, _: m if executor == "eager" else compiled(m),
        f"torch's budget, {RATIO}": lambda m, _: compiled(m, backend=budgeted(backend, RATIO)),
        f"fxremat, {SHARE} of the peak": lambda m, peak: fxremat.optimize(
            m, budget=int(SHARE * peak), executor=executor
        ),
    }
    rows = list[dict[str, Any]]()
    left = list[tuple[torch.Tensor, list[torch.Tensor | None], torch.Tensor]]()
    for name, make in ways.items():
        own = copy.deepcopy(model)
        step = Step(own, make(own, rows[0]["peak_bytes"] if rows else 0))
        torch.manual_seed(7)
        loss = step.run(batch)
        left.append((loss, [each.grad for each in own.parameters()], rng_state("cpu")[0]))
        rows.append(
            {
                "executor": executor,
                "variant": name,
                "loss": loss.item(),
                "loss_equal": torch.equal(loss, left[0][0]),
                "relative_error": relative_error(left[0][1], left[-1][1]),
                "rng_equal": torch.equal(left[-1][2], left[0][2]),
            }
        )
        rows[-1]["peak_bytes"] = step_peak(step, batch)
    return rows


def table(rows: Sequence[records.Row]) -> str:
    """A line a variant."""
    lines = list[str]()
    for row in rows:
        if row["variant"] == "plain":
            title = "op by op" if row["executor"] == "eager" else "in Inductor's kernels"
            lines += ["", f"{title:26} {'peak, MiB':>9}  {'loss':10} {'gradients':16} random state"]
        error = row["relative_error"]
        gradients = "the same bits" if error == 0 else f"off by {error:.2f}"
        state = "the same" if row["rng_equal"] else "another"
        lines.append(
            f"{row['variant']:26} {row['peak_bytes'] / 2**20:9.2f}  "
            f"{row['loss']:<10.6f} {gradients:16} {state}"
        )
    return "\n".join(lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--executors", nargs="*", default=["eager", "inductor"])
    parser.add_argument("--out", type=Path, help="keep the rows in this folder")
    parser.add_argument("--kept", type=Path, help="show the rows of this folder, measure nothing")
    parser.add_argument("--into", type=Path, help="show them in this page, between its two marks")
    args = parser.parse_args()
    if args.kept:
        text = table(list(records.load(args.kept).values()))
        show(f"```\n{text}\n```", args.into, BEGIN, END)
        return
    torch.set_num_threads(1)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    rows = [row for executor in args.executors for row in measure(executor)]
    if args.out:
        about = {**records.environment(1), "commit": commit()}
        about["command"] = " ".join(["python -m benchmarks.budget_dropout", *sys.argv[1:]])
        for row in rows:
            key = f"{row['executor']}/{row['variant']}"
            records.append(args.out, {"key": key, **row, **about})
        records.compact(args.out)
    print(table(rows))


if __name__ == "__main__":
    main()
