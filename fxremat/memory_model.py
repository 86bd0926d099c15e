"""What counts as step memory: every rule that is about a device or its allocator, in one place.

All passes ask; none of them knows a rule itself. What a kernel
returns and takes is measured (`profile_ops`, `kernel_layouts`); what is resident is the graph's
own (`Storage.resident`).

On CUDA the caching allocator rounds each request up to blocks of 512 bytes, which is counted. Out
of its large pool (requests over 1 MiB) it hands a cached block out whole where at most 1 MiB of it
would be left over, and `memory_allocated` counts that rest: it depends on what was freed before,
so no plan can know it. What a plan promises there is the requested bytes in blocks;
`max_memory_allocated` may show up to 1 MiB more for each large tensor that is alive
(c10/cuda/CUDACachingAllocator.cpp, `should_split`). `frontend/allocator_check` measures that, and
has the step planned again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from fxremat.nodes import input_tensors, is_collective, op_name, outputs_of, tensors_of

CUDA_BLOCK = 512


def allocated_bytes(nbytes: int, device: torch.device) -> int:
    """What the device's allocator takes for a request, in bytes."""
    if device.type == "cuda":
        return -(-nbytes // CUDA_BLOCK) * CUDA_BLOCK
    return nbytes


def storage_bytes(value: object) -> tuple[int | None, ...]:
    """What the storage of each output of a node takes, by position; None for what is no tensor."""
    return tuple(
        allocated_bytes(tensor.untyped_storage().nbytes(), tensor.device)
        if isinstance(tensor, torch.Tensor)
        else None
        for tensor in outputs_of(value)
    )


def collective_workspace(node: fx.Node) -> int:
    """What an op that communicates takes beside its results; 0 for any other.

    It isn't run by itself to be measured. On the CPU gloo gathers into one more block like the
    result, and scatters from a copy of what it is given; NCCL's buffers are not the allocator's.
    """
    if not is_collective(node) or any(t.device.type != "cpu" for t in tensors_of(node)):
        return 0
    copied = ()
    if op_name(node.target).startswith("all_gather_into_tensor"):
        copied = tensors_of(node)
    elif op_name(node.target).startswith("reduce_scatter_tensor"):
        copied = input_tensors(node)
    return sum(tensor.untyped_storage().nbytes() for tensor in copied)


def generator_state_bytes(device: torch.device) -> int:
    """The size of a generator's state; the states of all devices are tensors on the CPU."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_rng_state(device).numel()
    return torch.get_rng_state().numel()


@dataclass(frozen=True)
class MemoryModel:
    """What a step on one device counts, run op by op.

    `holds_outputs` says that what forward returns is held until backward ends, by who called it.
    Of one of several graphs of a step that isn't known beforehand: its outputs are the step's.
    """

    device: torch.device
    holds_outputs: bool = True

    def counts(self, device: torch.device) -> bool:
        """Whether memory there is part of the step's: CPU tensors beside a GPU are not."""
        return device.type == self.device.type

    def new_tensor(self, tensor: torch.Tensor) -> int:
        """Bytes that a (fake) tensor in memory of its own counts for."""
        if not self.counts(tensor.device):
            return 0
        return allocated_bytes(tensor.untyped_storage().nbytes(), tensor.device)

    def generator_state(self, device: torch.device | None) -> int:
        """Bytes that a kept state of a device's generator counts for."""
        if device is None or self.device.type != "cpu" or device.type != "cpu":
            return 0
        return generator_state_bytes(device)

    def is_held(self, tangent: torch.Tensor) -> bool:
        """Whether a gradient that backward is given lives to its end.

        The engine's caller holds that of a scalar loss; larger ones are handed over, and freed
        after their last use.
        """
        return tangent.numel() == 1
