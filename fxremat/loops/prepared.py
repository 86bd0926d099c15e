"""A loop's arguments, checked, and the runs that are made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fxremat.errors import OptionError
from fxremat.loops.captured import Captured
from fxremat.loops.casting import Casting
from fxremat.loops.compiled import CompiledRecorder, CompiledStep
from fxremat.loops.condition import Condition
from fxremat.loops.function import refuse_transforms
from fxremat.loops.outputs import Outputs
from fxremat.loops.progress import Watcher
from fxremat.loops.randomness import Generators
from fxremat.loops.reachable import Reachable, reachable
from fxremat.loops.recording import Recorder
from fxremat.loops.recurrence import Leaf, Recurrence
from fxremat.loops.replayed import Check, Replays
from fxremat.loops.run import Run
from fxremat.loops.store import Memory, Store
from fxremat_solvers.loops.actions import Action

Step = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Prepared:
    """`steps` is None where a condition says when to end."""

    recurrence: Recurrence
    leaves: tuple[Leaf, ...]
    steps: int | None
    condition: Condition | None
    generators: Generators | None
    reached: Reachable
    named: tuple[torch.Tensor, ...]
    check: Check
    compiled: CompiledStep | None = None

    @staticmethod
    def of(
        step: Step,
        state: Any,
        *,
        steps: int | None,
        xs: Any,
        while_: Callable[[Any, int], Any] | None,
        max_steps: int | None,
        outputs: bool,
        params: Iterable[torch.Tensor] | nn.Module | None,
        rng: bool,
        check: Check,
    ) -> Prepared:
        """Check what a user gave. Raises `OptionError`, or `LoopError` for a wrong state."""
        refuse_transforms()
        recurrence, leaves = Recurrence.of(step, state, xs, outputs)
        length = _length(steps, recurrence, while_, max_steps)
        reached = reachable(step)
        generators = None
        if rng:
            generators = Generators.of((*leaves, *recurrence.xs), reached.generators)
        condition = None
        if while_ is not None:
            condition = Condition(while_, max_steps, generators, always=check == "always")
        named = params.parameters() if isinstance(params, nn.Module) else params or ()
        Replays(check)
        return Prepared(
            recurrence,
            tuple(leaves),
            length,
            condition,
            generators,
            reached,
            tuple(named),
            check,
        )

    @property
    def device(self) -> torch.device:
        """Where the loop's tensors are; the first one that isn't the CPU."""
        found = [t.device for t in self.tensors]
        return next((d for d in found if d.type != "cpu"), torch.device("cpu"))

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The first state's and those of xs."""
        leaves = (*self.leaves, *self.recurrence.xs)
        return [t for t in leaves if isinstance(t, torch.Tensor)]

    def beginning(self, steps: int) -> Prepared:
        """The loop's first steps, on leaves of their own, for measuring."""
        recurrence = dataclasses.replace(
            self.recurrence, xs=tuple(_own(x[:steps]) if x.ndim else x for x in self.recurrence.xs)
        )
        first = {id(t): _own(t) for t in self.leaves if isinstance(t, torch.Tensor)}
        leaves = tuple(first.get(id(leaf), leaf) for leaf in self.leaves)
        # Inputs keep whether they require gradients.
        for old, new in zip(self.recurrence.xs, recurrence.xs, strict=True):
            new.requires_grad_(old.requires_grad)
        return dataclasses.replace(
            self, recurrence=recurrence, leaves=leaves, steps=steps, check="first"
        )

    def run(
        self,
        actions: Iterator[Action],
        stores: Mapping[int, Store] | None = None,
        watcher: Watcher | None = None,
    ) -> Run:
        """A run by a schedule."""
        casting = Casting.now({t.device.type for t in self.tensors} | {"cpu"})
        casting.check()
        outputs = Outputs(self.steps) if self.recurrence.has_outputs else None
        ours = {id(t) for t in self.tensors}
        reachable = [t for t in self.reached.tensors if id(t) not in ours]
        if self.compiled is None:
            captured = Captured(self.recurrence.step, self.named)
            recorder = Recorder(
                self.recurrence,
                self.leaves,
                captured,
                outputs,
                reachable,
                careful=self.check != "never",
            )
        else:
            casting.refuse()
            reachable = []
            captured = Captured(self.recurrence.step, self.compiled.traced.captured)
            recorder = CompiledRecorder(self.compiled, self.recurrence, outputs, self.leaves)
        return Run(
            self.recurrence,
            self.leaves,
            actions,
            steps=self.steps,
            captured=captured,
            stores=stores or {0: Memory()},
            generators=self.generators,
            casting=casting,
            replays=Replays(self.check),
            recorder=recorder,
            outputs=outputs,
            reachable=reachable,
            watcher=watcher,
        )

    def by(self, compiled: CompiledStep | None) -> Prepared:
        """The loop with its step compiled. Raises `OptionError` where it isn't that step."""
        if compiled is None:
            return self
        compiled.check(self.recurrence, self.leaves, self.reached.tensors)
        return dataclasses.replace(self, compiled=compiled)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _length(
    steps: int | None, recurrence: Recurrence, condition: Any, max_steps: int | None
) -> int | None:
    if [steps is not None, bool(recurrence.xs), condition is not None].count(True) != 1:
        raise OptionError(
            "give one of steps= (a number), xs= (tensors to iterate over) and while_= (a condition)"
        )
    if max_steps is not None:
        whole_number("max_steps", max_steps, least=0)
        if condition is None:
            raise OptionError("max_steps is for while_=; without it the number of steps is known")
    if condition is not None:
        return None
    if steps is not None:
        return whole_number("steps", steps, least=0)
    lengths = {x.shape[0] if x.ndim else None for x in recurrence.xs}
    if len(lengths) != 1 or None in lengths:
        raise OptionError(
            "the tensors of xs have different lengths in their first dimension, along which the "
            f"loop goes: {sorted(map(str, lengths))}"
        )
    return int(lengths.pop() or 0)


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """An option that is a whole number; `OptionError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} is {value!r}: it is a whole number, {least} or more")
    return value
