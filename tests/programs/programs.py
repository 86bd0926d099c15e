"""Random training steps as Python source, drawn by hypothesis, so that what fails can be read.

A program is a module's `forward` over matrices: it computes, takes views, writes in place, casts,
draws, normalises, counts in a buffer, reuses what it has, and returns a loss and other outputs.
Statements are drawn one by one; one that torch refuses on tensors of these shapes is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

ROWS, COLUMNS = 24, 16

# Statements over values a and b (any two that there are); n is the name of what is made. Those
# that write do so into a copy, or into what this program itself made.
COMPUTED = (
    "{n} = {a}.sin()",
    "{n} = torch.tanh({a})",
    "{n} = F.gelu({a})",
    "{n} = F.silu({a}) * 2",
    "{n} = ({a} * 0.1).exp()",
    "{n} = torch.softmax({a}, -1)",
    "{n} = {a} + {b}",
    "{n} = {a} * {b}",
    "{n} = {a} - 0.5 * {b}",
    "{n} = torch.where({a} > {b}, {a}, {b} * 0.5)",
    "{n} = torch.maximum({a}, {b})",
    "{n} = {a} @ {b}",
    "{n} = {a} @ {b}.t() * 0.1",
    "{n} = torch.cat([{a}, {b}], -1)",
    "{n} = {a}.cumsum(0) * 0.1",
    "{n} = {a}.sort(-1).values",
    "{n} = {a}.amax(-1, keepdim=True)",
    "{n} = {a}.mean(0, keepdim=True)",
    "{n} = {a}.gather(-1, {b}.argsort(-1))",
    "{n} = F.layer_norm({a}, {a}.shape[-1:])",
    "{n} = self.linear({a})",
    "{n} = self.wide({a})",
    "{n} = self.narrow({a})",
    "{n} = self.norm({a})",
    "{n} = self.other_norm({a})",
    "{n} = F.mse_loss({a}, {b})",
    "{n} = {a} * self.scale",
    "{n} = {a} * self.count",
)
DRAWN = (
    "{n} = F.dropout({a}, 0.3)",
    "{n} = F.dropout({a}, 0.5)",
    "{n} = {a} + torch.rand_like({a})",
    "{n} = {a} * torch.bernoulli(torch.full_like({a}, 0.5))",
)
VIEWS = (
    "{n} = {a}.t()",
    "{n} = {a}[1:]",
    "{n} = {a}[:, ::2]",
    "{n} = {a}[:, :8]",
    "{n} = {a}.reshape(-1, 8)",
    "{n} = {a}.unsqueeze(0).expand(2, -1, -1).sum(0)",
    "{n}, _ = {a}.chunk(2, dim=-1)",
    "_, {n} = {a}.chunk(2, dim=0)",
    "{n} = {a}.detach()",
)
WRITTEN = (
    "{n} = {a}.clone(); {n}.mul_(1.5)",
    "{n} = {a} * 1; {n}.add_({b})",
    "{n} = {a} * 1; {n}[:, 0].mul_(3)",
    "{n} = {a} * 1; {n}.t().sin_()",
    "{n} = {a} * 1; {n}[2:5] = {b}[2:5]",
    "{n} = {a} * 2; {n}.relu_()",
    "{n} = {a} + 1; F.dropout({n}, 0.2, inplace=True)",
    "{n} = {a}; self.count.add_(1)",
    "{n} = {a}; self.mean.lerp_({a}.detach().float().mean(), 0.1)",
)
CAST = ("{n} = {a}.double()", "{n} = {a}.bfloat16()", "{n} = {a}.float()")
BRANCHED = (
    "{n} = cond({a}.sum() > 0, lambda v: v.sin() * 2, lambda v: v.exp() * 0.1, ({a},))",
    "{n} = cond({b}.mean() > 0, lambda v, w: v * w, lambda v, w: v - w, ({a}, {a} * 2))",
)
_DRAWING = ("dropout", "rand_like", "bernoulli")
# As often as each is drawn: a branch takes as long to trace as many others.
KINDS = (*[COMPUTED] * 6, *[DRAWN] * 2, *[VIEWS] * 2, *[WRITTEN] * 2, *[CAST] * 2, BRANCHED)


@dataclass(frozen=True)
class Program:
    """The source of a step: `statements`, and the names of the values that its loss is made of."""

    statements: tuple[str, ...]
    outputs: tuple[str, ...]
    returned: tuple[str, ...]

    @property
    def source(self) -> str:
        lines = ["def forward(self, x, y):", *(f"    {line}" for line in self.statements)]
        terms = " + ".join(f"{name}.float().square().mean()" for name in self.outputs)
        others = "".join(f", {name}" for name in self.returned)
        return "\n".join((*lines, f"    return {terms}{others},"))

    def module(self) -> nn.Module:
        """A module that does it, the same each time."""
        torch.manual_seed(0)
        made = _Holder()
        names: dict[str, Any] = {"torch": torch, "F": F, "cond": cond}
        exec(compile(self.source, "<program>", "exec"), names)
        made.__class__ = type("Program", (_Holder,), {"forward": names["forward"]})
        return made


class _Holder(nn.Module):
    """What programs refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(COLUMNS, COLUMNS)
        self.wide = nn.Linear(COLUMNS, 2 * COLUMNS)
        self.narrow = nn.Linear(2 * COLUMNS, COLUMNS)
        self.norm = nn.BatchNorm1d(COLUMNS)
        self.other_norm = nn.BatchNorm1d(COLUMNS, momentum=0.3)
        self.scale = nn.Parameter(torch.full((), 0.7))
        self.unused = nn.Parameter(torch.zeros(3))
        self.register_buffer("count", torch.ones(()))
        self.register_buffer("mean", torch.zeros(()))


def cond(
    chosen: torch.Tensor,
    yes: Callable[..., torch.Tensor],
    no: Callable[..., torch.Tensor],
    args: tuple[torch.Tensor, ...],
) -> torch.Tensor:
    """`torch.cond`, which in eager would compile its branches each time."""
    if torch.compiler.is_compiling():
        return torch.cond(chosen, yes, no, args)
    return yes(*args) if chosen else no(*args)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs of a step; the second one takes no gradient."""
    generator = torch.Generator().manual_seed(step)
    return (
        torch.randn(ROWS, COLUMNS, generator=generator, requires_grad=True),
        torch.randn(ROWS, COLUMNS, generator=generator),
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Programs that eager runs forward and backward without an error."""
    statements: list[str] = []
    names = ["x", "y"]
    for index in range(draw(st.integers(3, 14))):
        kind = draw(st.sampled_from(KINDS))
        statement = draw(st.sampled_from(kind)).format(
            n=f"v{index}",
            a=draw(st.sampled_from(names)),
            b=draw(st.sampled_from(names)),
        )
        if runs(Program((*statements, statement), (f"v{index}",), ())):
            statements.append(statement)
            names.append(f"v{index}")
    made = names[2:] or ["x"]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
    # Tracing leaves out draws that nobody reads, and eager's stream then goes another way.
    drawn = [line.split()[0] for line in statements if any(word in line for word in _DRAWING)]
    outputs = list(dict.fromkeys((*outputs, *drawn)))
    returned = draw(st.lists(st.sampled_from(made), max_size=2, unique=True))
    indices = ["v_index"] if draw(st.booleans()) else []
    if indices:
        statements.append(f"v_index = {made[-1]}.argmax(-1)")
    program = Program(tuple(statements), ("x", *outputs), (*returned, *indices))
    return program if runs(program) else Program((), ("x",), ())


def runs(program: Program) -> bool:
    """Whether eager takes a step of it."""
    try:
        program.module()(*batch(0))[0].backward()
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    return True
