"""Budgets: how much memory one training step may allocate.

A budget caps the *step memory*: the bytes that forward and backward allocate above what is
resident when the step starts (parameters, buffers, optimizer state and inputs are resident).
"""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import torch

from fxremat.errors import BudgetError

# A letter alone is a power of 1024, as in the memory flags of most tools (docker, java, slurm).
_UNITS = {
    "b": 1,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "t": 2**40,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
# A bare int below this is a slip: no step that one would plan fits into it.
_LEAST_BARE_BYTES = 1000
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]+)\s*")


def parse_bytes(text: str) -> int:
    """``"6GiB"`` and ``"6G"`` -> 6·2^30, ``"6GB"`` -> 6·10^9; `BudgetError` otherwise."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise BudgetError(
            f"{text!r} is not a size: write a number and a unit, such as '6GiB' or '500MB' "
            "(a fraction is a float and no text: 0.5)"
        )
    number, unit = match.groups()
    factor = _UNITS.get(unit.lower())
    if factor is None:
        raise BudgetError(
            f"unknown unit {unit!r} in {text!r}: use one of B, KB, MB, GB, TB (powers of 1000), "
            "KiB, MiB, GiB, TiB or K, M, G, T (powers of 1024)"
        )
    return int(float(number) * factor)


@dataclass(frozen=True)
class Budget:
    """A cap on the step memory: `nbytes` bytes, or `fraction` of the step memory with nothing
    recomputed. Exactly one of the two is set. Build with `Budget.of`.
    """

    nbytes: int | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        if (self.nbytes is None) == (self.fraction is None):
            raise BudgetError("a Budget has either nbytes or a fraction")
        if self.nbytes is not None and self.nbytes <= 0:
            raise BudgetError(f"budget is {self.nbytes} bytes: it must be above 0")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise BudgetError(
                f"budget is the fraction {self.fraction}: it must be above 0 and at most 1 "
                "(for bytes give an int, or a string such as '6GiB')"
            )

    @staticmethod
    def of(budget: object) -> Budget:
        """An `int` is bytes, a `str` a size with units, a `float` in (0, 1] a fraction.

        Numbers of NumPy's are what Python's are. Raises `BudgetError` (a `ValueError`) for
        anything else, and for an int below 1000, which is meant as something else.
        """
        if isinstance(budget, Budget):
            return budget
        if isinstance(budget, bool):
            raise BudgetError(f"budget is {budget}: give bytes, a size or a fraction, not a bool")
        if isinstance(budget, str):
            return Budget(nbytes=parse_bytes(budget))
        if isinstance(budget, Integral):
            nbytes = int(budget)
            if 0 < nbytes < _LEAST_BARE_BYTES:
                raise BudgetError(
                    f"budget={nbytes} is {nbytes} bytes, which is hardly meant: for GiB write "
                    f"'{nbytes}GiB', for a fraction of the step memory a float such as 0.5 or "
                    f"1.0, and for a step that is really so small '{nbytes}B'"
                )
            return Budget(nbytes=nbytes)
        if isinstance(budget, Real):
            fraction = float(budget)
            if not math.isfinite(fraction):
                raise BudgetError(f"budget is {fraction}: it must be a finite number")
            return Budget(fraction=fraction)
        raise BudgetError(
            f"budget is a {type(budget).__name__}: give an int (bytes), a str such as '6GiB', "
            "a float in (0, 1] (fraction of the step memory with nothing recomputed) or a Budget"
        )

    @property
    def plain(self) -> str | float:
        """What `of` makes the same budget of."""
        return f"{self.nbytes}B" if self.fraction is None else self.fraction

    def to_bytes(self, baseline_bytes: int) -> int:
        """The cap in bytes, for a step whose memory with nothing recomputed is given."""
        if self.nbytes is not None:
            return self.nbytes
        assert self.fraction is not None
        return int(self.fraction * baseline_bytes)

    @staticmethod
    def device(
        total: int | str,
        *,
        optimizer: torch.optim.Optimizer,
        model: torch.nn.Module | None = None,
        reserve: int | str = 0,
    ) -> Budget:
        """What is left for the step on a device of `total` bytes.

        Subtracted: the optimizer's parameters, its state as it will be after its first step, the
        `model`'s further parameters and buffers, and `reserve` (inputs, other models, allocator
        slack); both are ints or sizes with units. On CUDA, memory that is allocated already counts
        where that is more.

        Raises `BudgetError` where nothing is left or the optimizer's state can't be foreseen.
        """
        total_bytes = parse_bytes(total) if isinstance(total, str) else int(total)
        reserve_bytes = parse_bytes(reserve) if isinstance(reserve, str) else int(reserve)
        parameters: list[torch.Tensor] = [
            p for group in optimizer.param_groups for p in group["params"]
        ]
        resident = {p.untyped_storage().data_ptr(): p for p in parameters}
        if model is not None:
            for tensor in (*model.parameters(), *model.buffers()):
                resident.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        resident_bytes = sum(t.untyped_storage().nbytes() for t in resident.values())
        state_now = _state_bytes(optimizer)
        state_bytes = state_now or foreseen_state_bytes(optimizer)
        device = parameters[0].device if parameters else torch.device("cpu")
        if device.type == "cuda":
            allocated = torch.cuda.memory_allocated(device) - state_now
            resident_bytes = max(resident_bytes, allocated)
        left = total_bytes - resident_bytes - state_bytes - reserve_bytes
        if left <= 0:
            raise BudgetError(
                f"nothing is left for the step on a device of {total_bytes} bytes: "
                f"{resident_bytes} are resident, {state_bytes} are optimizer state, "
                f"{reserve_bytes} are reserved"
            )
        return Budget(nbytes=left)


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    return sum(t.untyped_storage().nbytes() for t in tensors)


def foreseen_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """State size after the first step, from one step of a twin on meta tensors."""
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        metas = [torch.empty_like(p, device="meta").requires_grad_() for p in group["params"]]
        for meta in metas:
            meta.grad = torch.empty_like(meta)
        groups.append({**group, "params": metas})
    try:
        accepted = inspect.signature(type(optimizer)).parameters
        defaults = {k: v for k, v in optimizer.defaults.items() if k in accepted}
        twin = type(optimizer)(cast("Any", groups), **defaults)
        twin.step()
    except Exception as error:
        raise BudgetError(
            f"can't foresee the state of {type(optimizer).__name__}: take one optimizer step "
            "before Budget.device, or give the budget in bytes"
        ) from error
    return _state_bytes(twin)
