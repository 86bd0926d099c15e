"""States on a disk: the same bits, nothing left behind, and a full disk is an error."""

from __future__ import annotations

import functools
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxremat
from fxremat.loops.disk import Disk
from fxremat.loops.packed import Packing
from fxremat.loops.store import Kept
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace

FREE = 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["steps", "xs", "while"])
def test_bits(dtype: torch.dtype, dropout: float, kind: str, tmp_path: Path) -> None:
    storage = fxremat.Storage(f"disk:{tmp_path}", FREE, FREE)
    options: Any = {"slots": 1, "store": storage, "check": "always"}
    cell, cheap = Cell(dropout=dropout).to(dtype), nn.GRUCell(16, 16).to(dtype)
    y = torch.randn(8, 16, dtype=dtype, requires_grad=True)
    xs = torch.randn(12, 8, 16, dtype=dtype, requires_grad=True)
    drop = nn.Dropout(dropout)

    def step(h: torch.Tensor, x: torch.Tensor) -> Any:
        new = cheap(drop(x), h)
        return new, (new, new.sin())

    if kind == "xs":
        leaves = [y, xs, *cheap.parameters()]
        expected = trace(lambda: plain(step, y, xs=xs, outputs=True), leaves)
        run = functools.partial(fxremat.loop, step, y, xs=xs, outputs=True, **options)
    else:
        leaves = [y, *cell.parameters()]
        length: Any = {"steps": 12} if kind == "steps" else {"while_": lambda _, i: i < 12}
        count = [] if kind == "steps" else [12]
        expected = trace(lambda: [plain(cell, y, steps=12), *count], leaves)
        run = functools.partial(fxremat.loop, cell, y, **length, **options)
    assert_same(expected, trace(run, leaves))
    assert os.listdir(tmp_path) == []


def test_a_state_of_many_kinds(tmp_path: Path) -> None:
    """Strides, a tensor that comes twice, empty ones and plain numbers are read as they were."""
    wide = torch.randn(4, 6)
    leaves = (wide.t(), 3, wide.t(), wide, torch.empty(0, 2), torch.tensor(True), None, wide)
    kept = Kept((*leaves[:2], leaves[0], *leaves[3:]), (torch.get_rng_state(),))
    disk = Disk(str(tmp_path))
    disk.put(1, kept)
    found = disk.get(1)
    disk.drop(1)
    for a, b in zip(kept.leaves, found.leaves, strict=True):
        assert (a == b) if not isinstance(a, torch.Tensor) else torch.equal(a, b)
        if isinstance(a, torch.Tensor):
            assert a.stride() == b.stride()
    assert found.leaves[0] is found.leaves[2]
    assert torch.equal(found.random[0], kept.random[0])


def test_expanded_tensors_are_packed_whole() -> None:
    packing, tensors = Packing.of(Kept((torch.ones(1, 3).expand(5, 3),), ()))
    whole = torch.empty(packing.nbytes, dtype=torch.uint8)
    packing.write(whole, tensors)
    assert torch.equal(packing.read(whole).leaves[0], torch.ones(5, 3))


def failing(fails: list[bool]) -> Any:
    weight = torch.ones(4, requires_grad=True)

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        if fails[0] and i == 5:
            raise KeyError("mine")
        return y * weight

    return step


@pytest.mark.parametrize("when", ["first run", "backward", "never differentiated"])
def test_nothing_is_left_after_an_error(when: str, tmp_path: Path) -> None:
    fails = [when == "first run"]
    options: Any = {"steps": 9, "slots": 1, "store": fxremat.Storage(f"disk:{tmp_path}", 0, 0)}
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    if when == "first run":
        with pytest.raises(KeyError, match="mine"):
            fxremat.loop(failing(fails), torch.ones(4), **options)
    else:
        loss = fxremat.loop(failing(fails), torch.ones(4), **options).sum()
        fails[0] = True
        if when == "backward":
            with pytest.raises(KeyError, match="mine"):
                loss.backward()
        del loss
    assert os.listdir(tmp_path) == []
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands in for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(fxremat.StorageError, match="more space"):
            fxremat.loop(
                failing([False]),
                torch.ones(4),
                steps=9,
                slots=1,
                store=fxremat.Storage(f"disk:{tmp_path}", 0, 0),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(fxremat.StorageError, match="no folder"):
        fxremat.loop(failing([False]), torch.ones(4), steps=9, slots=1, store="disk:/nowhere")


def test_fewer_evaluations_than_near_states_alone_allow(tmp_path: Path) -> None:
    counts: list[int] = []
    for store in ("ram", f"disk:{tmp_path}"):
        weight, calls = torch.ones(4, requires_grad=True), [0]

        def step(y: torch.Tensor, _: int, weight: Any = weight, calls: Any = calls) -> torch.Tensor:
            calls[0] += 1
            return y * weight

        fxremat.loop(step, torch.ones(4), steps=200, slots=3, store=store).sum().backward()
        counts.append(calls[0])
    assert counts[1] < 0.7 * counts[0]


def test_near_memory_is_within_the_budget(tmp_path: Path) -> None:
    cell, y = Cell(32), torch.randn(256, 32)
    plan = fxremat.loop.plan(cell, y, steps=40, slots=4)
    options: Any = {"steps": 40, "store": f"disk:{tmp_path}"}

    def run(**more: Any) -> None:
        final = fxremat.loop(cell, y, **options, **more)
        torch.autograd.grad(final, [*cell.parameters()], torch.ones_like(final))

    run(budget=plan.peak_bytes)
    for slots in (1, 3):
        run(slots=slots)
        assert fxremat.measure_peak(functools.partial(run, slots=slots)).peak_bytes <= (
            plan.peak_bytes
        )


@pytest.mark.parametrize("store", ["tape", 3, fxremat.Storage])
def test_options(store: Any) -> None:
    with pytest.raises(fxremat.OptionError, match="store"):
        fxremat.loop(
            lambda y, _: y, torch.ones(1, requires_grad=True), steps=1, slots=1, store=store
        )


def test_prices() -> None:
    with pytest.raises(fxremat.OptionError, match="negative"):
        fxremat.Storage("cpu", write=-1)
