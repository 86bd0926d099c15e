"""Cases from torch's own database of operators: one sample of one op in one type, as a small step.

A case is named ``op.variant-dtype-index``; samples are drawn under a fixed seed, so that a name
means the same numbers in every process.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch.testing._internal import common_methods_invocations as database
from torch.testing._internal.opinfo.core import OpInfo, SampleInput
from torch.testing._utils import wrapper_set_seed
from torch.utils import _pytree as pytree

DTYPES = (
    torch.float32,
    torch.complex64,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.complex128,
)
SAMPLES = 2
SEED = 20
# What runs between an op's forward and its backward holds more than most of the samples.
_BALLAST = torch.linspace(0.5, 1.5, 4096)


@dataclass(frozen=True)
class Case:
    """One sample of an op: the first, or the one in the middle of those that torch has."""

    op: str
    dtype: str
    index: int

    @property
    def name(self) -> str:
        return f"{self.op}-{self.dtype}-{self.index}"

    @staticmethod
    def named(name: str) -> Case:
        op, dtype, index = name.rsplit("-", 2)
        return Case(op, dtype, int(index))


@cache
def _operators() -> dict[str, OpInfo]:
    """Every op with a gradient, by its full name."""
    # Some random ops are called through this, which Dynamo can't trace. Here steps set the seed.
    database.wrapper_set_seed = _unseeded
    return {
        f"{op.name}.{op.variant_test_name}".rstrip("."): op
        for op in database.op_db
        if op.supports_autograd
    }


def _function(op: OpInfo) -> Callable[..., Any]:
    """An op as a function that gives it valid data."""
    # Masked ops: theirs leaves numbers out, and Dynamo can't trace it.
    if op.gradcheck_wrapper is wrapper_set_seed or op.name.startswith("masked."):
        return op.op
    return partial(op.gradcheck_wrapper, op.op)


def _unseeded(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return op(*args, **kwargs)


def all_cases(dtypes: Sequence[torch.dtype] = DTYPES, samples: int = SAMPLES) -> Iterator[Case]:
    """Every op in every type that its backward supports on the CPU; the first samples first."""
    for index in range(samples):
        for dtype in dtypes:
            for name, op in _operators().items():
                if dtype in op.supported_backward_dtypes("cpu"):
                    yield Case(name, str(dtype).removeprefix("torch."), index)


@dataclass(frozen=True)
class Step:
    """A loss over one op: `call(*tensors)` is the loss, and what of the results is no number.

    Every number of the op's results is in the loss, whose bits are compared: results that the step
    returned could not be recomputed.
    """

    call: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """The tensors anew, in the same layout, with no gradients yet."""
        return tuple(_copied(t).requires_grad_(t.requires_grad) for t in self.tensors)


def make_step(case: Case, *, held: bool) -> Step:
    """The step of a case.

    Where it is `held`, the step's peak lies between the op's forward and its backward, so that a
    tight budget leaves no room for what the op would keep. Otherwise it lies in the op.
    """
    op, sample = _operators()[case.op], _sample(case)
    given = (sample.input, sample.args, sample.kwargs)
    tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor)]
    function, select = _function(op), sample.output_process_fn_grad

    def call(*inputs: torch.Tensor) -> Any:
        left = iter([_passed_on(t) if t.requires_grad else t for t in inputs])
        first, args, kwargs = _filled(given, left)
        selected = select(function(first, *args, **kwargs))
        single = isinstance(selected, torch.Tensor)
        results = [selected] if single else pytree.tree_leaves(selected)
        numbers = [r for r in results if isinstance(r, torch.Tensor) and _is_number(r)]
        others = [r for r in results if not (isinstance(r, torch.Tensor) and _is_number(r))]
        loss = sum([_reduced(number) for number in numbers])
        return (_after_a_chain(loss) if held else loss, *others)

    return Step(call, tuple(tensors))


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A leaf with the data and the strides of another."""
    plain = tensor.detach()
    return copy.deepcopy(plain) if plain.layout is torch.strided else plain.clone()


def _passed_on(tensor: torch.Tensor) -> torch.Tensor:
    """The same bits by way of two ops that can be recomputed: data must stay valid for the op."""
    return tensor.neg().neg() if tensor.layout is torch.strided else tensor


def _filled(tree: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """Nested arguments with other tensors in the place of theirs, in order."""
    if isinstance(tree, torch.Tensor):
        return next(tensors)
    if isinstance(tree, dict):
        return {name: _filled(value, tensors) for name, value in tree.items()}
    # Named tuples (sizes too) hold no tensors.
    if type(tree) in (tuple, list):
        return type(tree)([_filled(value, tensors) for value in tree])
    return tree


@lru_cache(maxsize=1)  # A case has two steps, and some ops have hundreds of samples.
def _sample(case: Case) -> SampleInput:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    dtype = getattr(torch, case.dtype)
    samples = list(_operators()[case.op].sample_inputs("cpu", dtype, requires_grad=True))
    return samples[case.index * len(samples) // SAMPLES]


def _is_number(result: torch.Tensor) -> bool:
    return result.dtype.is_floating_point or result.dtype.is_complex


def _reduced(result: torch.Tensor) -> torch.Tensor:
    """A finite number of a result, by way of values that backward reads."""
    real = result.abs().square() if result.dtype.is_complex else result
    return real.sin().nan_to_num().sum()


def _after_a_chain(loss: torch.Tensor | int) -> torch.Tensor:
    """A loss with a chain of larger values in between."""
    chain = _BALLAST * loss
    for _ in range(4):
        chain = chain.sin()
    return chain.sum()
