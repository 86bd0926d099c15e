"""A loop as two operators, forward and backward: pure functions of tensors, numbers and a text.

Forward returns the result, the outputs, and the states that it keeps; backward takes those, and
gives the gradients. So compilers may do with a loop what they do with any operator.
"""

# torch.library's annotations are loose.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fxremat import torch_hooks
from fxremat.classify import draws_nothing, is_tagged_random
from fxremat.errors import LoopError
from fxremat.loops.captured import Captured
from fxremat.loops.casting import Casting
from fxremat.loops.halves import in_halves, kept_states
from fxremat.loops.outputs import OutputKind, Outputs
from fxremat.loops.program import Program, program_of
from fxremat.loops.randomness import Generators
from fxremat.loops.recording import Recorder
from fxremat.loops.recurrence import Recurrence
from fxremat.loops.replayed import Replays
from fxremat.loops.run import Run
from fxremat.loops.store import Kept, Memory
from fxremat.nodes import op_name

_FORWARD = "(Tensor[] operands, str program, int steps, int slots, int length, bool[] wanted)"
_BACKWARD = (
    "(Tensor[] operands, Tensor[] kept, Tensor?[] gradients, str program, int steps, int slots, "
    "int length, bool[] wanted)"
)
torch.library.define("fxremat::loop", f"{_FORWARD} -> Tensor[]")
torch.library.define(
    "fxremat::loop_that_draws",
    f"{_FORWARD} -> Tensor[]",
    tags=(torch.Tag.nondeterministic_seeded,),
)
torch.library.define("fxremat::loop_backward", f"{_BACKWARD} -> Tensor[]")

Lies = tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device]
"""A tensor's shape, strides, type and device."""


@dataclass(frozen=True)
class Look:
    """What a step shows before it runs: how the state after it and its outputs lie, which leaves of
    the state require gradients before steps 0, 1, ..., which outputs do, and whether it draws."""

    state: tuple[Lies, ...]
    outputs: tuple[Lies, ...]
    flags: tuple[tuple[bool, ...], ...]
    live: tuple[bool, ...]
    draws: bool


@dataclass(frozen=True)
class Call:
    """A loop as its operators are given it. `wanted` says which operands require gradients."""

    program: Program
    steps: int
    slots: int
    length: int
    wanted: tuple[bool, ...]
    look: Look

    @staticmethod
    def of(
        operands: Sequence[Tensor],
        program: str,
        steps: int,
        slots: int,
        length: int,
        wanted: Sequence[bool],
    ) -> Call:
        look = look_at(program, tuple(map(_lies, operands)), tuple(wanted))
        return Call(Program.of_text(program), steps, slots, length, tuple(wanted), look)

    @property
    def returned(self) -> list[int]:
        """The leaves of the state that the operator returns.

        One that a step passes on is the operand itself, unless it has a gradient, whose first
        summand is what comes in for the result.
        """
        passed, flags = self.program.passed, self.look.flags[-1]
        return [k for k, flag in enumerate(flags) if flag or not passed[k]]

    @property
    def moving(self) -> list[int]:
        """The leaves of the state that a step makes anew."""
        return [k for k, passed in enumerate(self.program.passed) if not passed]

    @functools.cached_property
    def kept(self) -> list[int]:
        """The states that are kept."""
        if not any(self.wanted):
            return []
        return kept_states(self.steps, self.slots, self.length)

    def generators(self, operands: Sequence[Tensor]) -> Generators | None:
        """Those whose states are kept, too."""
        if not self.look.draws:
            return None
        found = Generators.of(operands, ())
        return _Measured(found.cuda, found.own)

    def run(self, operands: Sequence[Tensor], outputs: Outputs | None, memory: Memory) -> Run:
        """The loop, with leaves of its own."""
        program, look = self.program, self.look
        own = [
            t.detach().requires_grad_(need) for t, need in zip(operands, self.wanted, strict=True)
        ]

        def step(state: list[Tensor], read: Any) -> Any:
            parts = read if program.xs else ()
            made = program.function(0 if program.xs else read, *state, *parts, *own)
            new, rest = list(made[: len(state)]), list(made[len(state) :])
            return (new, rest) if rest else new

        recurrence, leaves = Recurrence.of(
            step,
            [own[k] for k in program.state],
            [own[k] for k in program.xs] if program.xs else None,
            program.outputs > 0,
        )
        captured = Captured(step, [own[k] for k in program.captured])
        if outputs is not None:
            _, nesting = torch_hooks.flatten_tree([None] * program.outputs)
            kinds = (
                OutputKind(live, leaf if live and leaf >= 0 else None)
                for live, leaf in zip(look.live, program.shared, strict=True)
            )
            outputs.settle(tuple(kinds), nesting)
        recorder = Recorder(recurrence, leaves, captured, outputs, (), careful=False)
        recorder.settle(look.flags)
        return Run(
            recurrence,
            leaves,
            in_halves(self.steps, self.slots, self.length),
            steps=self.steps,
            captured=captured,
            stores={0: memory},
            generators=self.generators(operands),
            casting=Casting.now({t.device.type for t in operands} | {"cpu"}),
            replays=Replays("never"),
            recorder=recorder,
            outputs=outputs,
        )


class _Measured(Generators):
    """Generators that are told no invented state: operators are measured with zeros."""

    def write(self, states: tuple[Tensor, ...]) -> None:
        if all(bool(state.any()) for state in states):
            super().write(states)


# ---- what a step shows


@functools.lru_cache(maxsize=64)
def look_at(text: str, operands: tuple[Lies, ...], wanted: tuple[bool, ...]) -> Look:
    """What a step shows on tensors without memory. Raises `LoopError`."""
    program = Program.of_text(text)
    drawn = torch_hooks.OpsSeen()
    with torch_hooks.untraced(), torch_hooks.fake_mode(), drawn, torch.enable_grad():
        made = [
            torch.empty_strided(shape, strides, dtype=dtype, device=device).requires_grad_(need)
            for (shape, strides, dtype, device), need in zip(operands, wanted, strict=True)
        ]
        state = [made[k] for k in program.state]
        parts = [made[k].detach()[0].requires_grad_(wanted[k]) for k in program.xs]
        flags: list[tuple[bool, ...]] = []
        before: Any = None
        for number in range(_LOOKS):
            flags.append(tuple(t.requires_grad for t in state))
            results = program.function(number, *state, *parts, *made)
            new, outputs = results[: len(state)], results[len(state) :]
            found = (tuple(map(_lies, new)), tuple(map(_lies, outputs)))
            state = [t.detach().requires_grad_(t.requires_grad) for t in new]
            if before is not None and found != before:
                break
            if tuple(t.requires_grad for t in state) == flags[-1] and number > 0:
                live = tuple(t.requires_grad for t in outputs)
                # What runs in graphs that a step holds is not always seen.
                draws = program.holds or any(_draws(*each) for each in drawn.seen)
                return Look(*found, tuple(flags), live, draws)
            before = found
    raise LoopError(
        "the state of a fxremat.loop in a compiled model lies otherwise in memory after its second "
        "step than after its first, or requires gradients in other places after each: make it "
        "contiguous in the step"
    )


_LOOKS = 8


def _draws(op: Any, arguments: Callable[[str], object]) -> bool:
    return is_tagged_random(op) and not draws_nothing(op_name(op), arguments)


def _lies(tensor: Tensor) -> Lies:
    return (
        tuple(map(int, tensor.shape)),
        tuple(map(int, tensor.stride())),
        tensor.dtype,
        tensor.device,
    )


def _empty(lies: Lies, first: tuple[int, ...] = ()) -> Tensor:
    shape, strides, dtype, device = lies
    if first:
        return torch.empty((*first, *shape), dtype=dtype, device=device)
    return torch.empty_like(torch.empty_strided(shape, strides, dtype=dtype, device=device))


# ---- forward


def forward(operands: list[Tensor], *how: Any) -> list[Tensor]:
    """The loop's results, outputs and kept states."""
    call = Call.of(operands, *how)
    program = call.program
    outputs = Outputs(call.steps) if program.outputs else None
    memory = Memory()
    run = call.run(operands, outputs, memory)
    run.sweep()
    state = run.current_state()
    results = [state[k] for k in call.returned]
    if outputs is not None:
        results += outputs.take()
    for number in call.kept:
        kept = memory.get(number)
        if number > 0:
            results += [kept.leaves[k] for k in call.moving]
        results += kept.random
    run.close()
    return _apart(results, operands)


def _fake_forward(operands: list[Tensor], *how: Any) -> list[Tensor]:
    call = Call.of(operands, *how)
    look = call.look
    state = [look.state[k] for k in call.returned]
    results = [*map(_empty, state), *(_empty(lies, (call.steps,)) for lies in look.outputs)]
    generators = call.generators(operands)
    for number in call.kept:
        if number > 0:
            results += [_empty(look.state[k]) for k in call.moving]
        if generators is not None:
            results += [torch.empty(size, dtype=torch.uint8) for size in _sizes_of(generators)]
    return results


def _sizes_of(generators: Generators) -> list[int]:
    with torch_hooks.untraced():
        return [state.numel() for state in generators.read()]


def _apart(tensors: list[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, none of which shares memory with another one, or has gaps in it."""
    seen = {torch_hooks.storage_key(t) for t in others}
    found: list[Tensor] = []
    while tensors:
        tensor = tensors.pop(0).detach()
        whole = tensor.untyped_storage().nbytes() == tensor.nbytes
        if torch_hooks.storage_key(tensor) in seen or not whole:
            tensor = tensor.clone()
        seen.add(torch_hooks.storage_key(tensor))
        found.append(tensor)
    return found


# ---- backward


def backward(
    operands: list[Tensor], kept: list[Tensor], gradients: list[Tensor | None], *how: Any
) -> list[Tensor]:
    """The gradients of the operands that are wanted."""
    call = Call.of(operands, *how)
    program = call.program
    outputs = Outputs(call.steps) if program.outputs else None
    memory, rest = Memory(), iter(kept)
    run = call.run(operands, outputs, memory)
    generators = call.generators(operands)
    many = 0 if generators is None else len(generators.read())
    first = run.inputs()[: len(program.state)]
    for number in call.kept:
        leaves = list(first)
        if number > 0:
            for k in call.moving:
                leaves[k] = next(rest)
        memory.put(number, Kept(tuple(leaves), tuple(next(rest) for _ in range(many))))
    run.resume(call.returned)
    own = list(gradients)
    gradients.clear()
    with torch.no_grad():
        found = run.reverse(own)
    places = (*program.state, *program.xs, *(k for k in program.captured if call.wanted[k]))
    totals: list[Tensor | None] = [None] * len(operands)
    for place, gradient in zip(places, found, strict=True):
        if gradient is not None and call.wanted[place]:
            before = totals[place]
            totals[place] = gradient if before is None else before + gradient
    results: list[Tensor] = []
    for operand, total, need in zip(operands, totals, call.wanted, strict=True):
        if need:
            like = torch.empty_like(operand, device="meta")
            total = torch.zeros_like(operand) if total is None else total
            if total.stride() != like.stride():
                total = torch.empty_like(operand).copy_(total)
            results.append(total)
    return _apart(results, [*operands, *kept])


def _fake_backward(
    operands: list[Tensor],
    kept: list[Tensor],  # noqa: ARG001
    gradients: list[Tensor | None],  # noqa: ARG001
    program: str,  # noqa: ARG001
    steps: int,  # noqa: ARG001
    slots: int,  # noqa: ARG001
    length: int,  # noqa: ARG001
    wanted: list[bool],
) -> list[Tensor]:
    return [torch.empty_like(t) for t, need in zip(operands, wanted, strict=True) if need]


# ---- as operators


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    operands, *how = inputs
    call = Call.of(operands, *how)
    made = len(call.returned) + call.program.outputs
    ctx.how, ctx.made, ctx.count = how, made, len(operands)
    ctx.mark_non_differentiable(*output[made:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*operands, *output[made:])


def _differentiate(ctx: Any, gradients: list[Tensor | None]) -> Any:
    saved = ctx.saved_tensors
    operands, kept = list(saved[: ctx.count]), list(saved[ctx.count :])
    found = iter(
        torch.ops.fxremat.loop_backward.default(
            operands, kept, list(gradients[: ctx.made]), *ctx.how
        )
    )
    *_, wanted = ctx.how
    return ([next(found) if need else None for need in wanted], None, None, None, None, None)


for name in ("fxremat::loop", "fxremat::loop_that_draws"):
    torch.library.impl(name, "CompositeExplicitAutograd")(forward)
    torch.library.register_fake(name)(_fake_forward)
    torch.library.register_autograd(name, _differentiate, setup_context=_setup_context)
torch.library.impl("fxremat::loop_backward", "CompositeExplicitAutograd")(backward)
torch.library.register_fake("fxremat::loop_backward")(_fake_backward)


# ---- as Dynamo's graphs have them

# Of each graph, by the numbers among its operands: a loop within a loop comes by once a step.
_programs: weakref.WeakKeyDictionary[fx.GraphModule, dict[tuple[int | None, ...], Program]] = (
    weakref.WeakKeyDictionary()
)


def run_loop(
    body: fx.GraphModule, *operands: Any, steps: int, slots: int, leaves: int
) -> tuple[Tensor, ...]:
    """What `in_graph.traced_loop` gets of its loop, by the operators."""
    numbers = tuple(None if isinstance(t, Tensor) else int(t) for t in operands)
    known = _programs.setdefault(body, {})
    program = known.get(numbers)
    if program is None:
        program = known[numbers] = program_of(body, operands, leaves)
    tensors = [t for t in operands if isinstance(t, Tensor)]
    wanted = [t.requires_grad and torch.is_grad_enabled() for t in tensors]
    text, steps = program.text, int(steps)
    call = Call.of(tensors, text, steps, min(int(slots), steps), 1, wanted)
    op = torch.ops.fxremat.loop_that_draws if call.look.draws else torch.ops.fxremat.loop
    made = iter(op.default(tensors, text, steps, min(int(slots), steps), 1, wanted))
    state = [
        next(made) if k in call.returned else tensors[place]
        for k, place in enumerate(program.state)
    ]
    stacked = [next(made) for _ in range(program.outputs)]
    return (*state, *(t[steps - 1] for t in stacked), *stacked)
