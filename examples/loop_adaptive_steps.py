"""An unknown number of steps: a solver that chooses its step size, differentiated exactly.

    python examples/loop_adaptive_steps.py

Van der Pol's oscillator by Heun's and Euler's methods, whose difference sets the size of the next
step; a step that was too coarse is taken again, smaller. How many steps that takes is seen only
when the end is reached. The parameter is then fitted to a trajectory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import fxremat

END, TOLERANCE = 6.0, 1e-4

State = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # time, position and speed, step size


def slope(y: torch.Tensor, stiffness: torch.Tensor) -> torch.Tensor:
    position, speed = y
    return torch.stack([speed, stiffness * (1 - position**2) * speed - position])


def stepper(stiffness: torch.Tensor) -> Callable[[State, int], State]:
    def step(state: State, _: int) -> State:
        time, y, size = state
        first = slope(y, stiffness)
        coarse = y + size * first
        second = slope(coarse, stiffness)
        fine = y + size / 2 * (first + second)
        # How the size is chosen isn't differentiated, as is usual.
        error = (fine - coarse).detach().norm() / TOLERANCE**0.5
        taken = error <= 1
        grown = size * (0.9 / (error + 1e-12).sqrt()).clamp(0.3, 2.0)
        after = torch.where(taken, time + size, time)
        y = torch.where(taken, fine, y)
        return after, y, torch.minimum(grown, (END - after).clamp(min=1e-9))

    return step


def going(state: State, _: int) -> bool:
    return bool(state[0] < END - 1e-6)


def first() -> State:
    return (
        torch.zeros((), dtype=torch.float64),
        torch.tensor([2.0, 0.0], dtype=torch.float64),
        torch.tensor(0.05, dtype=torch.float64),
    )


def solve(stiffness: torch.Tensor, slots: int = 12) -> tuple[torch.Tensor, int]:
    """Where the oscillator is at the end, and after how many steps."""
    (_, y, _), count = fxremat.loop(
        stepper(stiffness), first(), while_=going, max_steps=100_000, slots=slots
    )
    return y, count


def plainly(stiffness: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The same by a plain loop, for comparison."""
    state: Any = first()
    step, count = stepper(stiffness), 0
    while going(state, count):
        state = step(state, count)
        count += 1
    return state[1], count


def main(iterations: int = 6) -> None:
    with torch.no_grad():
        target, _ = solve(torch.tensor(1.5, dtype=torch.float64))
    stiffness = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [stiffness], max_iter=1, max_eval=20, line_search_fn="strong_wolfe"
    )
    counts: list[int] = []

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        y, count = solve(stiffness)
        counts.append(count)
        value = ((y - target) ** 2).sum()
        value.backward()
        return value

    for number in range(iterations):
        value = float(optimizer.step(loss).detach())
        now = float(stiffness.detach())
        print(f"{number:3}: loss {value:.2e}, stiffness {now:.6f}, {counts[-1]} steps")


if __name__ == "__main__":
    main()
