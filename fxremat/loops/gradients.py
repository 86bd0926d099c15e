"""The gradients of a loop under way: of the current state's leaves, of xs, and the totals."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxremat.loops.outputs import OutputKind
from fxremat.loops.recording import Recorded
from fxremat.loops.tape import Gradient


class Gradients:
    """Begins with what comes in from outside and goes through the steps, the last one first.

    `states` are the incoming gradients of the final state's leaves, `outputs` those of the stacked
    outputs, whose kinds are given. `captured` is the number of captured tensors.
    """

    def __init__(
        self,
        steps: int,
        states: list[Gradient],
        outputs: Sequence[Gradient],
        kinds: Sequence[OutputKind],
        xs: Sequence[torch.Tensor],
        captured: int,
        device: torch.device | None,
    ) -> None:
        self._steps = steps
        self._states = states
        self._leaves = len(states)
        self._outputs = outputs
        self._kinds = kinds
        self._xs = xs
        self._of_xs: list[Gradient] = [None] * len(xs)
        self._totals: list[Gradient] = [None] * captured
        self._seed = torch.empty(0, device=device)

    def pull(self, number: int, record: Recorded) -> None:
        """Reverse a step."""
        given = self._given(number, record)
        found = iter(record.tape.pull(given, self._seed))
        states: list[Gradient] = [None] * self._leaves
        for index in record.states:
            states[index] = next(found)
        self._states = states
        for index, x in enumerate(self._xs):
            if x.requires_grad:
                self._put(index, number, next(found))
        for place in record.captured:
            self._totals[place] = next(found)

    def take(self) -> list[Gradient]:
        """Those of the first state's leaves, of xs and of what is captured; none is held on to."""
        found = [*self._states, *self._of_xs, *self._totals]
        self._states, self._of_xs, self._totals = [], [], []
        return found

    def _given(self, number: int, record: Recorded) -> list[Gradient]:
        """What goes into a tape; nothing else holds it afterwards."""
        states: list[Gradient] = self._states
        self._states = []
        # Where an output is a tensor of the state its gradient is the first that the state gets.
        before: list[Gradient] = [None] * self._leaves
        for k in reversed(range(len(self._kinds))):
            gradient, leaf = self._outputs[k], self._kinds[k].leaf
            if leaf is None or gradient is None:
                continue
            if number + 1 == self._steps:
                states[leaf] = _added(states[leaf], gradient[number])
            if number > 0:
                before[leaf] = _added(before[leaf], gradient[number - 1])
        given = [states[j] for j in record.results]
        for k in record.outputs:
            gradient = self._outputs[k]
            given.append(None if gradient is None else gradient[number])
        given += [before[j] for j in record.states]
        for place in record.captured:
            given.append(self._totals[place])
            self._totals[place] = None
        return given

    def _put(self, index: int, number: int, gradient: Gradient) -> None:
        if gradient is None:
            return
        whole = self._of_xs[index]
        if whole is None:
            whole = torch.zeros_like(self._xs[index], memory_format=torch.contiguous_format)
            self._of_xs[index] = whole
        whole[number].copy_(gradient)


def _added(total: Gradient, more: Gradient) -> Gradient:
    return more if total is None else total + more if more is not None else total
