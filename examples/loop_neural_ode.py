"""A stiff neural ODE: exact gradients in the memory of a few states.

    python examples/loop_neural_ode.py

The adjoint method (torchdiffeq's `odeint_adjoint`) solves another equation backwards. With coarse
steps its gradients are not those of what was computed; with `fxremat.loop` they are, bit for bit,
whatever the step. Where torchdiffeq is installed its error is shown beside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import fxremat

WIDTH, ROWS, END = 16, 64, 1.0


class Slope(nn.Module):
    """dy/dt by a small network whose large weights make it stiff."""

    def __init__(self, scale: float = 6.0) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(scale)

    def forward(self, time: float, y: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(y) + time))


def rk4(slope: Slope, steps: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """A step of the classical Runge-Kutta method."""
    h = END / steps

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        t = h * i
        first = slope(t, y)
        second = slope(t + h / 2, y + h / 2 * first)
        third = slope(t + h / 2, y + h / 2 * second)
        fourth = slope(t + h, y + h * third)
        return y + h / 6 * (first + 2 * second + 2 * third + fourth)

    return step


def plain(step: Callable[[Any, int], Any], y: Any, steps: int) -> Any:
    for i in range(steps):
        y = step(y, i)
    return y


def gradients(slope: Slope, final: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of a loss of the final state, by the parameters."""
    return torch.autograd.grad((final**2).mean(), list(slope.parameters()))


def difference(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> float:
    """Relative, of all gradients together."""
    apart = torch.cat([(x - y).flatten() for x, y in zip(a, b, strict=True)])
    return float(apart.norm() / torch.cat([x.flatten() for x in a]).norm())


def adjoint(slope: Slope, y: torch.Tensor, steps: int) -> torch.Tensor | None:
    """The final state by torchdiffeq, None where it isn't installed."""
    try:
        from torchdiffeq import odeint_adjoint
    except ImportError:
        return None
    times = torch.tensor([0.0, END], dtype=y.dtype)
    options = {"step_size": END / steps}
    return odeint_adjoint(slope, y, times, method="rk4", options=options)[-1]


def main() -> None:
    torch.manual_seed(0)
    slope = Slope().double()
    y = torch.randn(ROWS, WIDTH, dtype=torch.float64)
    print("error of the gradients, relative to the plain loop's")
    for steps in (5, 20, 100, 500):
        step = rk4(slope, steps)
        exact = gradients(slope, plain(step, y, steps))
        ours = gradients(slope, fxremat.loop(step, y, steps=steps, slots=5))
        line = f"{steps:5} steps: fxremat.loop {difference(exact, ours):.1e}"
        theirs = adjoint(slope, y, steps)
        if theirs is not None:
            line += f", odeint_adjoint {difference(exact, gradients(slope, theirs)):.1e}"
        print(line)
    step = rk4(slope, 1000)
    print(fxremat.loop.plan(step, y, steps=1000, budget="1MiB"))


if __name__ == "__main__":
    main()
