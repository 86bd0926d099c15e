"""Shallow water, and where it came from: the first state found from observations of later ones.

    python examples/loop_data_assimilation.py [steps]

The height of the water is observed at a few places every tenth step. L-BFGS looks for the first
state from which the same would have been observed; every evaluation is a thousand steps forward
and their exact reversal. Writes assimilation.png with the first state: true, guessed and found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

import fxremat

SIDE, STEP, GRAVITY, DEPTH = 36, 0.02, 9.81, 1.0
PLACES, TIMES = 6, 10  # every how many are observed

State = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # height, velocities


def ahead(field: torch.Tensor, axis: int) -> torch.Tensor:
    """The difference to the next place, on a torus. Velocities lie between heights."""
    return torch.roll(field, -1, axis) - field


def behind(field: torch.Tensor, axis: int) -> torch.Tensor:
    """The difference to the place before."""
    return field - torch.roll(field, 1, axis)


def step(state: State, _: int) -> tuple[State, torch.Tensor]:
    """Symplectic Euler on the linear shallow water equations with drag, and what is observed."""
    height, east, north = state
    east = 0.9995 * (east - STEP * GRAVITY * ahead(height, 0))
    north = 0.9995 * (north - STEP * GRAVITY * ahead(height, 1))
    height = height - STEP * DEPTH * (behind(east, 0) + behind(north, 1))
    return (height, east, north), height[::PLACES, ::PLACES]


def bump(x: float, y: float, width: float) -> torch.Tensor:
    at = torch.arange(SIDE, dtype=torch.float64)
    return torch.exp(-((at[:, None] - x) ** 2 + (at[None, :] - y) ** 2) / (2 * width**2))


def truth() -> torch.Tensor:
    """The first height: two heaps, at rest."""
    return bump(10, 13, 3) + 0.7 * bump(25, 22, 4)


def still(height: torch.Tensor) -> State:
    return height, torch.zeros_like(height), torch.zeros_like(height)


Observe = Callable[[torch.Tensor], torch.Tensor]


def observer(steps: int, slots: int = 12) -> Observe:
    """What is observed of a loop from a first height."""

    def observe(height: torch.Tensor) -> torch.Tensor:
        _, heights = fxremat.loop(step, still(height), steps=steps, slots=slots, outputs=True)
        return heights[TIMES - 1 :: TIMES]

    return observe


def plain_observer(steps: int) -> Observe:
    """The same by a plain loop, for comparison."""

    def observe(height: torch.Tensor) -> torch.Tensor:
        state, heights = still(height), []
        for i in range(steps):
            state, seen = step(state, i)
            heights.append(seen)
        return torch.stack(heights)[TIMES - 1 :: TIMES]

    return observe


def assimilate(observe: Observe, seen: torch.Tensor, iterations: int) -> list[torch.Tensor]:
    """The guesses of the first height, the first of them flat."""
    guess = torch.zeros(SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [guess], max_iter=1, max_eval=20, history_size=20, line_search_fn="strong_wolfe"
    )
    found = [guess.detach().clone()]

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        # Before the loop: a first state that is used after it, too, has other last bits.
        penalty = 1e-5 * (guess**2).sum()
        value = penalty + ((observe(guess) - seen) ** 2).sum()
        value.backward()
        return value

    for _ in range(iterations):
        optimizer.step(loss)
        found.append(guess.detach().clone())
    return found


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with torch.no_grad():
        seen = observer(steps)(truth())
    first = still(truth().requires_grad_())
    print(fxremat.loop.plan(step, first, steps=steps, slots=12, outputs=True))
    found = assimilate(observer(steps), seen, 15)
    for number in range(0, len(found), 5):
        error = float((found[number] - truth()).norm() / truth().norm())
        print(f"iteration {number:3}: the first state is {100 * error:.1f} % off")
    plot(found, Path("assimilation.png"))


def plot(found: list[torch.Tensor], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    middle = len(found) // 5
    shown = {"true": truth(), f"after {middle} iterations": found[middle], "found": found[-1]}
    for axis, (title, field) in zip(axes, shown.items(), strict=True):
        axis.imshow(field.numpy(), vmin=-0.2, vmax=1.0)
        axis.set_title(title)
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
