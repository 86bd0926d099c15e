"""One loop: follows the actions of a schedule, up to the turn at once, the rest in backward."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from fxremat import torch_hooks
from fxremat.errors import DoubleBackwardError, LoopError, OptionError
from fxremat.loops.captured import Captured
from fxremat.loops.casting import Casting
from fxremat.loops.compiled import CompiledRecorder
from fxremat.loops.gradients import Gradients
from fxremat.loops.outputs import Outputs
from fxremat.loops.progress import Silent, Watcher
from fxremat.loops.randomness import Generators
from fxremat.loops.recording import Recorded, Recorder, detached
from fxremat.loops.recurrence import Leaf, Recurrence
from fxremat.loops.replayed import Replays
from fxremat.loops.store import Kept, Store
from fxremat.loops.tape import Gradient
from fxremat_solvers.errors import ScheduleError
from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Pull, Turn
from fxremat_solvers.loops.actions import Store as Keep
from fxremat_solvers.loops.actions import Tape as MakeTape
from fxremat_solvers.loops.interpreter import Interpreter


class Run:
    """A loop under way. `sweep` runs it, `reverse` gives the gradients, once."""

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
        recorder: Recorder | CompiledRecorder,
        outputs: Outputs | None = None,
        reachable: Sequence[torch.Tensor] = (),
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
        self._reachable = tuple(reachable)
        self._watcher = watcher or Silent()
        self._first = list(leaves)
        self._current: list[Leaf] = list(leaves)
        self._outputs = outputs
        self._recorder = recorder
        self._tapes: dict[int, Recorded] = {}
        self._gradients: Gradients | None = None
        self._reversed = False
        self._apply_casting: Callable[[], contextlib.AbstractContextManager[None]] = (
            contextlib.nullcontext
        )

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
        self._recorder.check_unchanged()
        self.captured.foresee(self._reachable)
        if not self._recorder.careful:
            self.captured.check_apart(range(len(self.captured.tensors)))
        self._watched = (*self.recurrence.xs, *self.captured.tensors)
        self._watched_versions = torch_hooks.versions(self._watched)

    @property
    def sweeping(self) -> bool:
        """Whether this is the first run."""
        return self.interpreter.left is None

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
        function that makes the loop's result of them. Takes them."""
        leaves, self._current = detached(self._current), []
        flags = self._recorder.flags(self.interpreter.steps or 0)
        tensors: list[torch.Tensor] = []
        wanted: list[bool] = []
        place: dict[int, int] = {}
        where: list[tuple[int | None, Any]] = []
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
        count, outputs = len(tensors), self._outputs
        for tensor, live in self.stacked():
            tensors.append(tensor)
            wanted.append(live)
        nesting = self.recurrence.nesting

        def made_of(found: Sequence[Any]) -> Any:
            state = torch_hooks.unflatten_tree(
                [other if at is None else found[at] for at, other in where], nesting
            )
            return state if outputs is None else (state, outputs.tree(found[count:]))

        return tensors, wanted, made_of

    def resume(self, returned: Sequence[int]) -> None:
        """Be as after a first run that was done elsewhere, and left its states in the stores.

        It returned these leaves of the state, and the outputs.
        """
        for action in self._actions:
            self._take(action)
            if isinstance(action, Turn):
                break
        self._returned = list(returned)
        self._after_sweep()

    # ---- the reversal

    def reverse(self, gradients: Sequence[Gradient]) -> list[Gradient]:
        """The gradients of `inputs`, given those of the tensors that were returned."""
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
        self._gradients = self._incoming(gradients)
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
            return self._gradients.take()
        finally:
            self._watcher.end()
            if self._generators is not None:
                self._generators.write(before)
            self.close()

    def _incoming(self, gradients: Sequence[Gradient]) -> Gradients:
        states: list[Gradient] = [None] * len(self._first)
        for index, gradient in zip(self._returned, gradients, strict=False):
            states[index] = gradient
        return Gradients(
            self.interpreter.steps or 0,
            states,
            gradients[len(self._returned) :],
            self._outputs.kinds if self._outputs is not None else (),
            self.recurrence.xs,
            len(self.captured.tensors),
            next((t.device for t in self._first if isinstance(t, torch.Tensor)), None),
        )

    def close(self) -> None:
        """Let go of everything that is kept."""
        self._tapes.clear()
        self._current = []
        self._gradients = None
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
        self._handlers[type(action)](self, action)

    def _pull(self, action: Pull) -> None:
        self._current = []
        assert self._gradients is not None
        self._gradients.pull(action.step, self._tapes.pop(action.step))
        self._watcher.step()

    def _load(self, action: Load) -> None:
        kept = self._store(action).get(action.state)
        if self._generators is not None:
            self._generators.write(kept.random)
        self._current = list(kept.leaves)

    def _keep(self, action: Keep) -> None:
        random = self._generators.read() if self._generators is not None else ()
        self._store(action).put(action.state, Kept(tuple(self._current), random))

    def _drop(self, action: Drop) -> None:
        self._store(action).drop(action.state)

    def _store(self, action: Keep | Load | Drop) -> Store:
        store = self._stores.get(action.level)
        if store is None:
            raise OptionError(
                f"schedule: {action} names level {action.level}, but the levels of this loop's "
                f"store are {sorted(self._stores)}"
            )
        return store

    def _advance(self, action: Advance) -> None:
        sweeping, advance = self.sweeping, self._recorder.advance
        with self._apply_casting():
            for number in range(action.begin, action.end):
                self._current = advance(number, self._current, sweeping=sweeping)
                if sweeping:
                    self._watcher.step()

    def _tape(self, action: MakeTape) -> None:
        number = action.step
        sweeping = self.sweeping
        self._replays.note(number, self._current)
        with self._apply_casting():
            self._tapes[number], self._current = self._recorder.tape(
                number, self._current, sweeping=sweeping
            )
        if sweeping:
            self._watcher.step()
        else:
            self._replays.compare(number + 1, self._current)

    # Looked up, as every action comes by here.
    _handlers: ClassVar[dict[type, Callable[[Run, Any], None]]] = {
        Advance: _advance,
        MakeTape: _tape,
        Pull: _pull,
        Load: _load,
        Keep: _keep,
        Drop: _drop,
    }
