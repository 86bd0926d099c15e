"""A step that runs with its graph: what its reversal takes in and gives, and what must hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from fxremat import torch_hooks
from fxremat.errors import LoopError
from fxremat.loops.captured import Captured
from fxremat.loops.outputs import OutputKind, Outputs
from fxremat.loops.recurrence import Leaf, Recurrence
from fxremat.loops.tape import Gradient, Tape


class Pulled(Protocol):
    """A tape: takes the gradients of what goes in, in this order, and gives the others."""

    def pull(self, gradients: list[Gradient], seed: torch.Tensor) -> list[Gradient]: ...


class Recorded(NamedTuple):
    """A tape, and whose gradients go in: the leaves of the state after the step (`results`), the
    outputs that are tensors of their own (`outputs`), the leaves before it (`states`), and the
    totals of what is captured (`captured`)."""

    tape: Pulled
    results: tuple[int, ...]
    outputs: tuple[int, ...]
    states: tuple[int, ...]
    captured: tuple[int, ...]


class Recorder:
    """Runs steps with their graphs.

    Which leaves of the state require gradients is seen from the first steps: `flags` says it before
    steps 0, 1, ..., its last entry for all further steps, once that is `settled`.
    """

    def __init__(
        self,
        recurrence: Recurrence,
        first: Sequence[Leaf],
        captured: Captured,
        outputs: Outputs | None,
        reachable: Sequence[torch.Tensor],
        careful: bool,
    ) -> None:
        self.settled = False
        self._recurrence = recurrence
        self._first = list(first)
        self._captured = captured
        self._outputs = outputs
        self.careful = careful
        self._flags: list[tuple[bool, ...]] = [_flags(first)]
        self._xs_flags = [x.requires_grad for x in recurrence.xs]
        # No step may change them in place.
        self._reachable = tuple(reachable)
        self._versions = torch_hooks.versions(self._reachable)

    def settle(self, flags: Sequence[tuple[bool, ...]]) -> None:
        """Say which leaves require gradients before steps 0, 1, ..., and all further ones."""
        self._flags, self.settled = list(flags), True

    def flags(self, number: int) -> tuple[bool, ...]:
        """Which leaves of a state require gradients."""
        return self._flags[min(number, len(self._flags) - 1)]

    def advance(self, number: int, current: list[Leaf], *, sweeping: bool) -> list[Leaf]:
        """The next state. Nothing is kept."""
        if sweeping and not self.settled:
            # With its graph, to see what requires gradients.
            return self._run(number, current, sweeping=True, kept=False)[1]
        recurrence = self._recurrence
        new, output = recurrence.run(number, current, recurrence.inputs(number))
        if sweeping and self._outputs is not None:
            self._outputs.note(number, output)
        return new

    def tape(
        self, number: int, current: list[Leaf], *, sweeping: bool
    ) -> tuple[Recorded, list[Leaf]]:
        """The step's record and the next state. Empties `current`."""
        record, new = self._run(number, current, sweeping=sweeping, kept=True)
        assert record is not None
        return record, new

    def _run(
        self, number: int, current: list[Leaf], *, sweeping: bool, kept: bool
    ) -> tuple[Recorded | None, list[Leaf]]:
        """The step's record, where it is `kept`, and the next state.

        During the first run (`sweeping`) it is noted what the step tells of all steps; later steps
        are held against that.
        """
        with torch.enable_grad():
            given = self._leaves_of(number, current)
            current.clear()
            inputs: list[torch.Tensor] = []
            if self._xs_flags:
                inputs = [
                    x.detach().requires_grad_(need)
                    for x, need in zip(self._recurrence.inputs(number), self._xs_flags, strict=True)
                ]
            before = torch_hooks.versions(given)
            since = torch_hooks.next_node_number()
            new, output = self._recurrence.run(number, given, inputs)
            if torch_hooks.versions(given) != before:
                raise LoopError(
                    f"step {number} changes its state in place: return new tensors instead, or "
                    "clone what the step changes first"
                )
            if sweeping:
                self.check_unchanged()
            kinds: tuple[OutputKind, ...] = ()
            parts: list[torch.Tensor] = []
            if self._outputs is not None:
                parts = self._outputs.leaves(number, output)
                kinds = self._outputs.kinds_of(number, parts, new, settle=sweeping)
            live = _each_once(new)
            own = [k for k in reversed(range(len(parts))) if kinds[k].own]
            results = [*(new[j] for j in live), *(parts[k] for k in own)]
            self._note_flags(number, _flags(new), sweeping)
            captured: Sequence[int] = range(len(self._captured.tensors))
            if self.careful or sweeping:
                captured = self._find_captured(number, results, [*given, *inputs], since, sweeping)
            record = None
            if kept:
                states = _each_once(given)
                if number == 0:
                    states = [j for j in states if given[j] not in self._captured]
                tape = Tape(
                    results,
                    [given[j] for j in states],
                    [x for x in inputs if x.requires_grad],
                    [self._captured.tensors[k] for k in captured],
                )
                record = Recorded(tape, tuple(live), tuple(own), tuple(states), tuple(captured))
        del results, parts, given, inputs
        after = detached(new)
        del new
        if sweeping and self._outputs is not None:
            self._outputs.note(number, output)
        return record, after

    def check_unchanged(self) -> None:
        """Raise where a tensor that is no state was changed by a step."""
        if torch_hooks.versions(self._reachable) == self._versions:
            return
        changed = [
            t
            for t, before in zip(self._reachable, self._versions, strict=True)
            if torch_hooks.versions([t]) != (before,)
        ]
        shapes = ", ".join(str(list(t.shape)) for t in changed)
        raise LoopError(
            f"a step changes tensors in place that are not its state (of shape {shapes}), such as "
            "the running statistics of a BatchNorm: steps that run again would change them again. "
            "Put them into the state, or call eval() on the module (track_running_stats=False)"
        )

    def _leaves_of(self, number: int, current: Sequence[Leaf]) -> list[Leaf]:
        """The current state as leaves of a new graph. A tensor that comes twice stays one tensor,
        as in the plain loop; so does a first state that the step also reaches otherwise."""
        leaves = detached(current)
        if number == 0:
            for index, first in enumerate(self._first):
                if first in self._captured:
                    leaves[index] = first
        for leaf, need in zip(leaves, self.flags(number), strict=True):
            if need and not leaf.requires_grad:
                leaf.requires_grad_()
        return leaves

    def _note_flags(self, number: int, found: tuple[bool, ...], sweeping: bool) -> None:
        if not self.settled and sweeping:
            self.settled = found == self.flags(number)
            if not self.settled:
                self._flags.append(found)
            return
        expected = self.flags(number + 1)
        if found == expected:
            return
        for index, (have, foreseen) in enumerate(zip(found, expected, strict=True)):
            if have and not foreseen:
                raise LoopError(
                    f"leaf {index} of the state requires gradients after step {number}, but did "
                    "not after the first steps, so that its gradients would be lost: let the first "
                    "state's leaf require gradients (state.requires_grad_())"
                )

    def _find_captured(
        self,
        number: int,
        results: Sequence[torch.Tensor],
        given: Sequence[Leaf],
        since: int,
        sweeping: bool,
    ) -> list[int]:
        known = len(self._captured.tensors)
        used = self._captured.find(results, given, since)
        if len(self._captured.tensors) > known and not sweeping:
            shapes = ", ".join(str(list(t.shape)) for t in self._captured.tensors[known:])
            raise LoopError(
                f"step {number} uses tensors that require gradients (of shape {shapes}) and that "
                "no earlier look at the steps had shown, so that their gradients would be lost: "
                "name them in params=[...]"
            )
        return used


def detached(leaves: Sequence[Leaf]) -> list[Leaf]:
    """Each tensor without its graph; one that comes several times stays one."""
    if len(leaves) == 1 and isinstance(leaves[0], torch.Tensor):
        return [leaves[0].detach()]
    seen: dict[int, torch.Tensor] = {}
    found: list[Leaf] = []
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            if id(leaf) not in seen:
                seen[id(leaf)] = leaf.detach()
            leaf = seen[id(leaf)]
        found.append(leaf)
    return found


def _flags(leaves: Sequence[Leaf]) -> tuple[bool, ...]:
    return tuple([isinstance(t, torch.Tensor) and t.requires_grad for t in leaves])


def _each_once(leaves: Sequence[Leaf]) -> list[int]:
    """The places of the tensors that require gradients, of equal ones the first."""
    if len(leaves) == 1:
        return [0] if _flags(leaves)[0] else []
    seen: set[int] = set()
    found: list[int] = []
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad and id(leaf) not in seen:
            seen.add(id(leaf))
            found.append(index)
    return found
