"""What a training run holds beside its steps: parameters, buffers, optimizer state, inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fxremat import torch_hooks
from fxremat.errors import OptionError
from fxremat.plan.budget import foreseen_state_bytes


@dataclass(frozen=True)
class Resident:
    """Bytes that are there when a step begins, and those of the gradients that it leaves.

    `optimizer_step_bytes` is the most that the optimizer's step takes while gradients are there:
    they count, and what it allocates meanwhile, but no state.
    """

    parameter_bytes: int
    buffer_bytes: int
    optimizer_bytes: int
    input_bytes: int
    gradient_bytes: int
    optimizer_step_bytes: int

    @property
    def nbytes(self) -> int:
        """What is there when a step begins."""
        return self.parameter_bytes + self.buffer_bytes + self.optimizer_bytes + self.input_bytes


@dataclass(frozen=True)
class _Optimizer:
    """A class of torch.optim by its name; `temporaries` are of its step, in gradients."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    temporaries: float = 0.0


# Several tensors at a time, torch's default on a GPU, take a copy of the second moments.
OPTIMIZERS: Mapping[str, _Optimizer] = MappingProxyType(
    {
        "adamw": _Optimizer("AdamW", temporaries=1.0),
        "adamw-fused": _Optimizer("AdamW"),
        "adam": _Optimizer("Adam", temporaries=1.0),
        "adam-fused": _Optimizer("Adam"),
        "adafactor": _Optimizer("Adafactor", temporaries=1.0),
        "adagrad": _Optimizer("Adagrad", temporaries=1.0),
        "rmsprop": _Optimizer("RMSprop", temporaries=1.0),
        "sgd": _Optimizer("SGD"),
        "sgd-momentum": _Optimizer("SGD", {"momentum": 0.9}),
    }
)
"""The optimizers that an estimate knows, beside "none"."""


def check_optimizer(name: str) -> str:
    """`name` if an estimate knows it; `OptionError` otherwise."""
    if name != "none" and name not in OPTIMIZERS:
        known = ", ".join((*OPTIMIZERS, "none"))
        raise OptionError(f"unknown optimizer {name!r}: choose one of {known}")
    return name


def resident_of(module: nn.Module | None, inputs: Any, optimizer: str, kind: str) -> Resident:
    """What a (fake) module, its inputs and the state of its optimizer take on a device."""
    parameters = [] if module is None else list(module.parameters())
    buffers = [] if module is None else list(module.buffers())
    trained = [p for p in parameters if p.requires_grad]
    tensors = [t for t in torch_hooks.tree_leaves(inputs) if isinstance(t, Tensor)]
    gradients = _nbytes(trained)
    # One tensor at a time on the CPU.
    largest = max((_nbytes([p]) for p in trained), default=0)
    share = 0.0 if optimizer == "none" else OPTIMIZERS[optimizer].temporaries
    temporary = int(share * (gradients if kind == "cuda" else largest))
    return Resident(
        parameter_bytes=_nbytes(parameters),
        buffer_bytes=_nbytes(buffers),
        optimizer_bytes=_state_bytes(trained, optimizer),
        input_bytes=_nbytes(tensors),
        gradient_bytes=gradients,
        optimizer_step_bytes=gradients + temporary,
    )


def _nbytes(tensors: list[Any]) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors)


def _state_bytes(trained: list[nn.Parameter], optimizer: str) -> int:
    if optimizer == "none" or not trained:
        return 0
    known = OPTIMIZERS[optimizer]
    metas = [nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device="meta")) for p in trained]
    return foreseen_state_bytes(getattr(torch.optim, known.kind)(metas, lr=1e-3, **known.options))
