"""FSDP2 in one process: sharding the root first or last trains by the plan, else it is an error."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import fxremat
from fxremat.frontend.compiled import compiled_of

if not dist.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)
from torch.distributed.fsdp import fully_shard

X = torch.randn(64, 16)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(self.linear(x))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Generator[Any]:
    store: Path = tmp_path_factory.mktemp("store") / "file"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield dist.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def shard_first(model: nn.Module, mesh: Any) -> nn.Module:
    fully_shard(model, mesh=mesh)
    return fxremat.optimize(model, budget=1.0)


def shard_last(model: nn.Module, mesh: Any) -> nn.Module:
    optimized = fxremat.optimize(model, budget=1.0)
    fully_shard(optimized, mesh=mesh)
    return optimized


@pytest.mark.parametrize("make", [shard_first, shard_last])
def test_a_sharded_root_trains_by_the_plan(mesh: Any, make: Any) -> None:
    model = nn.Sequential(Block(), Block())
    baseline = copy.deepcopy(model)
    baseline(X).square().mean().backward()
    optimized = make(model, mesh)
    with warnings.catch_warnings():
        warnings.simplefilter("error", fxremat.UnplannedStepWarning)
        optimized(X).square().mean().backward()
    for ours, theirs in zip(optimized.parameters(), baseline.parameters(), strict=True):
        assert torch.equal(ours.grad.full_tensor(), theirs.grad)
    assert compiled_of(optimized).backend.steps.count == 1


def test_sharded_blocks_are_no_single_graph(mesh: Any) -> None:
    model = nn.Sequential(Block(), Block())
    for block in model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    with pytest.raises(fxremat.GraphBreakError):
        fxremat.optimize(model, budget=1.0, fullgraph=True)(X)


def test_blocks_are_optimized_one_by_one(mesh: Any) -> None:
    blocks = [fxremat.optimize(Block(), budget=1.0) for _ in range(2)]
    for block in blocks:
        fully_shard(block, mesh=mesh)
    model = fully_shard(nn.Sequential(*blocks), mesh=mesh)
    model(X).square().mean().backward()
    assert [compiled_of(block).backend.steps.count for block in blocks] == [1, 1]
