"""One loop: follows the actions of a schedule, up to the turn at once, the rest in backward."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fxremat import torch_hooks
from fxremat.errors import DoubleBackwardError, LoopError, OptionError
from fxremat.loops.captured import Captured
from fxremat.loops.casting import Casting
from fxremat.loops.outputs import OutputKind, Outputs
from fxremat.loops.progress import Silent, Watcher
from fxremat.loops.randomness import Generators
from fxremat.loops.recurrence import Leaf, Recurrence
from fxremat.loops.replayed import Replays
from fxremat.loops.store import Kept, Store
from fxremat.loops.tape import Gradient, Tape
from fxremat_solvers.errors import ScheduleError
from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Pull, Turn
from fxremat_solvers.loops.actions import Store as Keep
from fxremat_solvers.loops.actions import Tape as MakeTape
from fxremat_solvers.loops.interpreter import Interpreter


@dataclass(frozen=True)
class Recorded:
    """A tape, and whose gradients go in: the leaves of the state after the step (`results`), the
    outputs that are tensors of their own (`outputs`), the leaves before it (`states`), and the
    totals of what is captured (`captured`)."""

    tape: Tape
    results: tuple[int, ...]
    outputs: tuple[int, ...]
    states: tuple[int, ...]
    captured: tuple[int, ...]


class Run:
    """A loop under way. `sweep` runs it, `reverse` gives the gradients, once.

    `states` of `flags` say which leaves require gradients before steps 0, 1, ...; the last entry
    holds for all further steps. Until that is known steps run with their graphs, to see it.
    """

    def __init__(
        self,
        recurrence: Recurrence,
        leaves: Sequence[Leaf],
        actions: Iterator[Action],
        *,
        steps: int | None,
        captured: Captured,
        stores: Mapping[int, Store],
        generators: Generators | None,
        casting: Casting,
        replays: Replays,
        reachable: Sequence[torch.Tensor] = (),
        careful: bool = True,
        watcher: Watcher | None = None,
    ) -> None:
        self.recurrence = recurrence
        self.captured = captured
        self.interpreter = Interpreter(steps)
        self._actions = actions
        self._stores = stores
        self._generators = generators
        self._casting = casting
        self._replays = replays
        self._careful = careful
        self._watcher = watcher or Silent()
        self._first = list(leaves)
        self._current: list[Leaf] = list(leaves)
        self._flags: list[tuple[bool, ...]] = [_flags(leaves)]
        self._settled = False
        self._xs_flags = [x.requires_grad for x in recurrence.xs]
        self._outputs = Outputs(steps) if recurrence.has_outputs else None
        self._tapes: dict[int, Recorded] = {}
        self._apply_casting: Callable[[], contextlib.AbstractContextManager[None]] = (
            contextlib.nullcontext
        )
        # No step may change them in place.
        self._reachable = tuple(reachable)
        self._versions: tuple[int, ...] = torch_hooks.versions(self._reachable)
        self._reversed = False
        # Of the reversal: gradients of the current state's leaves, and the totals.
        self._gradients: list[Gradient] = []
        self._of_outputs: Sequence[Gradient] = ()
        self._of_xs: list[Gradient] = [None] * len(recurrence.xs)
        self._totals: list[Gradient] = []
        self._seed = torch.empty(0)

    # ---- the first run

    def sweep(self) -> None:
        """Run the loop up to its turn."""
        self._watcher.begin("loop", self.interpreter.steps)
        try:
            with torch.no_grad():
                for action in self._actions:
                    self._take(action)
                    if isinstance(action, Turn):
                        self._after_sweep()
                        return
                    self.follow(action)
            self._finish()
        except BaseException:
            self.close()
            raise
        finally:
            self._watcher.end()

    def _after_sweep(self) -> None:
        if torch_hooks.versions(self._reachable) != self._versions:
            self._say_what_changed()
        self.captured.foresee(self._reachable)
        self._watched = (*self.recurrence.xs, *self.captured.tensors)
        self._watched_versions = torch_hooks.versions(self._watched)

    def inputs(self) -> list[Any]:
        """What gradients are for: the first state's leaves, xs, and what is captured."""
        return [*self._first, *self.recurrence.xs, *self.captured.tensors]

    def stacked(self) -> list[tuple[torch.Tensor, bool]]:
        """The outputs after the first run, and whether each requires gradients. Takes them."""
        outputs = self._outputs
        if outputs is None:
            return []
        return [(t, kind.live) for t, kind in zip(outputs.take(), outputs.kinds, strict=True)]

    def current_state(self) -> Any:
        """The state at hand, as the user's steps see it."""
        return torch_hooks.unflatten_tree(self._current, self.recurrence.nesting)

    def results(self) -> tuple[list[torch.Tensor], list[bool], Callable[[Sequence[Any]], Any]]:
        """The tensors that the loop returns, each once; whether each is differentiable; and the
        function that makes the loop's result of them."""
        leaves, self._current = _detached(self._current), []
        steps = self.interpreter.steps or 0
        flags = self._flags[min(steps, len(self._flags) - 1)]
        tensors: list[torch.Tensor] = []
        wanted: list[bool] = []
        place: dict[int, int] = {}
        where: list[Any] = []
        self._returned: list[int] = []
        for index, (leaf, flag) in enumerate(zip(leaves, flags, strict=True)):
            if not isinstance(leaf, torch.Tensor):
                where.append((None, leaf))
                continue
            if id(leaf) not in place:
                place[id(leaf)] = len(tensors)
                tensors.append(leaf)
                wanted.append(flag)
                self._returned.append(index)
            where.append((place[id(leaf)], None))
        count = len(tensors)
        outputs = self._outputs
        if outputs is not None:
            tensors += outputs.take()
            wanted += [kind.live for kind in outputs.kinds]
        nesting = self.recurrence.nesting

        def made_of(found: Sequence[Any]) -> Any:
            state = torch_hooks.unflatten_tree(
                [other if at is None else found[at] for at, other in where], nesting
            )
            return state if outputs is None else (state, outputs.tree(found[count:]))

        return tensors, wanted, made_of

    # ---- the reversal

    def reverse(self, gradients: Sequence[Gradient]) -> list[Gradient]:
        """The gradients of the first state's leaves, of xs and of what is captured."""
        if torch.is_grad_enabled():
            raise DoubleBackwardError(
                "gradients of gradients (create_graph=True) of a fxremat.loop: write the loop in "
                "plain Python, or ask for gradients of gradients inside the step"
            )
        if self._reversed:
            raise LoopError(
                "a second backward through a fxremat.loop, whose kept states are used up "
                "(retain_graph=True can't keep them): run the loop again, or add the losses first"
            )
        if torch_hooks.versions(self._watched) != self._watched_versions:
            raise LoopError(
                "a tensor that the loop's steps use (a parameter, or xs) was changed in place "
                "between the loop and its backward: take the optimizer's step after backward"
            )
        self._reversed = True
        self._begin(gradients)
        before = self._generators.read() if self._generators is not None else ()
        kinds = {kind for kind, _, _ in self._casting.kinds}
        if Casting.now(kinds) != self._casting or any(on for _, on, _ in self._casting.kinds):
            self._apply_casting = self._casting.applied
        self._watcher.begin("reversal", self.interpreter.steps)
        try:
            with torch_hooks.without_tensor_hooks(self.captured.tensors):
                for action in self._actions:
                    self._take(action)
                    self.follow(action)
            self._finish()
        finally:
            self._watcher.end()
            if self._generators is not None:
                self._generators.write(before)
            self.close()
        found = [*self._gradients, *self._of_xs, *self._totals]
        self._gradients, self._of_xs, self._totals = [], [], []
        return found

    def _begin(self, gradients: Sequence[Gradient]) -> None:
        self._gradients = [None] * len(self._first)
        for index, gradient in zip(self._returned, gradients, strict=False):
            self._gradients[index] = gradient
        self._of_outputs = gradients[len(self._returned) :]
        self._totals = [None] * len(self.captured.tensors)
        device = next((t.device for t in self._first if isinstance(t, torch.Tensor)), None)
        self._seed = torch.empty(0, device=device)

    def close(self) -> None:
        """Let go of everything that is kept."""
        self._tapes.clear()
        self._current = []
        for store in self._stores.values():
            store.close()

    # ---- actions

    def _take(self, action: Action) -> None:
        try:
            self.interpreter.take(action)
        except ScheduleError as error:
            raise OptionError(f"schedule: {error}") from None

    def _finish(self) -> None:
        try:
            self.interpreter.finish()
        except ScheduleError as error:
            raise OptionError(f"schedule: {error}") from None

    def follow(self, action: Action) -> None:
        """Do what an action says, unasked."""
        match action:
            case Advance():
                for number in range(action.begin, action.end):
                    self._advance(number)
                    if self.interpreter.left is None:
                        self._watcher.step()
            case MakeTape():
                self._tapes[action.step] = self._record(action.step)
                if self.interpreter.left is None:
                    self._watcher.step()
            case Pull():
                self._pull(action.step)
                self._watcher.step()
            case Load():
                kept = self._store(action).get(action.state)
                if self._generators is not None:
                    self._generators.write(kept.random)
                self._current = list(kept.leaves)
            case Keep():
                random = self._generators.read() if self._generators is not None else ()
                self._store(action).put(action.state, Kept(tuple(self._current), random))
            case Drop():
                self._store(action).drop(action.state)
            case Turn():
                raise AssertionError(action)

    def _store(self, action: Keep | Load | Drop) -> Store:
        store = self._stores.get(action.level)
        if store is None:
            raise OptionError(
                f"schedule: {action} names level {action.level}, but the levels of this loop's "
                f"store are {sorted(self._stores)}"
            )
        return store

    def _advance(self, number: int) -> None:
        if not self._settled and self.interpreter.left is None:
            self._record(number, kept=False)
            return
        recurrence = self.recurrence
        with self._apply_casting():
            new, output = recurrence.run(number, self._current, recurrence.inputs(number))
        self._current = new
        if self._outputs is not None and self.interpreter.left is None:
            self._outputs.note(number, output)

    def _record(self, number: int, kept: bool = True) -> Any:
        """Run a step with its graph: the record of its tape where it is `kept`, and in any case
        what it tells of which tensors require gradients."""
        recurrence, sweeping = self.recurrence, self.interpreter.left is None
        flags = self._flags[min(number, len(self._flags) - 1)]
        if kept:
            self._replays.note(number, self._current)
        with torch.enable_grad(), self._apply_casting():
            given = self._leaves_of(number, flags)
            self._current = []
            inputs = [
                x.detach().requires_grad_(need)
                for x, need in zip(recurrence.inputs(number), self._xs_flags, strict=True)
            ]
            before = torch_hooks.versions(given)
            since = torch_hooks.next_node_number()
            new, output = recurrence.run(number, given, inputs)
            if torch_hooks.versions(given) != before:
                raise LoopError(
                    f"step {number} changes its state in place: return new tensors instead, or "
                    "clone what the step changes first"
                )
            if sweeping and torch_hooks.versions(self._reachable) != self._versions:
                self._say_what_changed()
            kinds: tuple[OutputKind, ...] = ()
            parts: list[torch.Tensor] = []
            if self._outputs is not None:
                parts = self._outputs.leaves(number, output)
                kinds = self._outputs.kinds_of(number, parts, new, settle=sweeping)
            live = _each_once(new)
            own = [k for k in reversed(range(len(parts))) if kinds[k].own]
            results = [*(new[j] for j in live), *(parts[k] for k in own)]
            self._note_flags(number, flags, new)
            captured: Sequence[int] = range(len(self.captured.tensors))
            if self._careful or sweeping:
                captured = self._find_captured(number, results, [*given, *inputs], since)
            made = None
            if kept:
                states = _each_once(given)
                if number == 0:
                    states = [j for j in states if given[j] not in self.captured]
                tape = Tape(
                    results,
                    [given[j] for j in states],
                    [x for x in inputs if x.requires_grad],
                    [self.captured.tensors[k] for k in captured],
                )
                made = Recorded(tape, tuple(live), tuple(own), tuple(states), tuple(captured))
        del results, parts, given, inputs
        self._current = _detached(new)
        del new
        if not sweeping:
            self._replays.compare(number + 1, self._current)
        elif self._outputs is not None:
            self._outputs.note(number, output)
        return made

    def _leaves_of(self, number: int, flags: tuple[bool, ...]) -> list[Leaf]:
        """The current state as leaves of a new graph. A tensor that comes twice stays one tensor,
        as in the plain loop; so does a first state that the step also reaches otherwise."""
        leaves = _detached(self._current)
        if number == 0:
            for index, first in enumerate(self._first):
                if first in self.captured:
                    leaves[index] = first
        for leaf, need in zip(leaves, flags, strict=True):
            if need and not leaf.requires_grad:
                leaf.requires_grad_()
        return leaves

    def _note_flags(self, number: int, flags: tuple[bool, ...], new: Sequence[Leaf]) -> None:
        found = _flags(new)
        if not self._settled and self.interpreter.left is None:
            self._settled = found == flags
            if not self._settled:
                self._flags.append(found)
            return
        expected = self._flags[min(number + 1, len(self._flags) - 1)]
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
    ) -> list[int]:
        known = len(self.captured.tensors)
        used = self.captured.find(results, given, since)
        if len(self.captured.tensors) > known and self.interpreter.left is not None:
            shapes = ", ".join(str(list(t.shape)) for t in self.captured.tensors[known:])
            raise LoopError(
                f"step {number} uses tensors that require gradients (of shape {shapes}) and that "
                "no earlier look at the steps had shown, so that their gradients would be lost: "
                "name them in params=[...]"
            )
        return used

    def _pull(self, number: int) -> None:
        record = self._tapes.pop(number)
        self._current = []
        given = self._given(number, record)
        rest = iter(record.tape.pull(given, self._seed))
        self._gradients = [None] * len(self._first)
        for index in record.states:
            self._gradients[index] = next(rest)
        for index, need in enumerate(self._xs_flags):
            if need:
                self._put_gradient_of_xs(index, number, next(rest))
        for place in record.captured:
            self._totals[place] = next(rest)

    def _given(self, number: int, record: Recorded) -> list[Gradient]:
        """What goes into a tape; nothing else holds it afterwards."""
        states, self._gradients = self._gradients, []
        kinds = self._outputs.kinds if self._outputs is not None else ()
        before: list[Gradient] = [None] * len(self._first)
        for k in reversed(range(len(kinds))):
            gradient, leaf = self._of_outputs[k], kinds[k].leaf
            if leaf is None or gradient is None:
                continue
            if number + 1 == self.interpreter.steps:
                states[leaf] = _added(states[leaf], gradient[number])
            if number > 0:
                before[leaf] = _added(before[leaf], gradient[number - 1])
        given = [states[j] for j in record.results]
        for k in record.outputs:
            gradient = self._of_outputs[k]
            given.append(None if gradient is None else gradient[number])
        given += [before[j] for j in record.states]
        for place in record.captured:
            given.append(self._totals[place])
            self._totals[place] = None
        return given

    def _put_gradient_of_xs(self, index: int, number: int, gradient: Gradient) -> None:
        if gradient is None:
            return
        whole = self._of_xs[index]
        if whole is None:
            whole = self._of_xs[index] = torch.zeros_like(
                self.recurrence.xs[index], memory_format=torch.contiguous_format
            )
        whole[number].copy_(gradient)

    def _say_what_changed(self) -> None:
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


def _flags(leaves: Sequence[Leaf]) -> tuple[bool, ...]:
    return tuple([isinstance(t, torch.Tensor) and t.requires_grad for t in leaves])


def _detached(leaves: Sequence[Leaf]) -> list[Leaf]:
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


def _each_once(leaves: Sequence[Leaf]) -> list[int]:
    """The places of the tensors that require gradients, of equal ones the first."""
    seen: set[int] = set()
    found: list[int] = []
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad and id(leaf) not in seen:
            seen.add(id(leaf))
            found.append(index)
    return found


def _added(total: Gradient, more: Gradient) -> Gradient:
    return more if total is None else total + more if more is not None else total
