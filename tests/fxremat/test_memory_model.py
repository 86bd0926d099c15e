"""The rules of what counts, by device: plain functions, so CUDA's are held without a GPU."""

from __future__ import annotations

import pytest
import torch

from fxremat.memory_model import MemoryModel, allocated_bytes, generator_state_bytes

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(("nbytes", "on_cuda"), [(0, 0), (1, 512), (512, 512), (513, 1024)])
def test_blocks(nbytes: int, on_cuda: int) -> None:
    assert allocated_bytes(nbytes, CPU) == nbytes
    assert allocated_bytes(nbytes, CUDA) == on_cuda


def test_only_the_steps_device_counts() -> None:
    tensor = torch.empty(3, 5)
    assert MemoryModel(CPU).new_tensor(tensor) == 60
    assert MemoryModel(CUDA).new_tensor(tensor) == 0
    assert MemoryModel(CPU).new_tensor(tensor[0]) == 60, "a storage counts whole"


def test_generator_states_are_tensors_on_the_cpu() -> None:
    nbytes = torch.get_rng_state().numel()
    assert generator_state_bytes(CPU) == nbytes
    assert MemoryModel(CPU).generator_state(CPU) == nbytes
    assert MemoryModel(CPU).generator_state(None) == 0
    assert MemoryModel(CUDA).generator_state(CUDA) == 0
    assert MemoryModel(CUDA).generator_state(CPU) == 0


def test_the_caller_holds_gradients_of_scalars() -> None:
    assert MemoryModel(CPU).is_held(torch.ones(()))
    assert MemoryModel(CPU).is_held(torch.ones(1, 1))
    assert not MemoryModel(CPU).is_held(torch.ones(2))
