"""Unrolled loops: a neural ODE of many Runge-Kutta steps, as tracing `benchmarks.zoo.ode` gives it.

Every stage of a step runs one small network; its weights are shared, so that their gradients are
summed up over all steps. A graph of a thousand steps is made in a second and traced in minutes.
"""

from __future__ import annotations

from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.testing.tape import Tape

_ITEM = 4  # bytes of a number


def ode(steps: int) -> RematProblem:
    """Classical Runge-Kutta: four stages a step, each `outer(tanh(inner(y) + t * time))`."""
    width, hidden, batch = 64, 128, 64
    tape = Tape()
    state, inside = _ITEM * batch * width, _ITEM * batch * hidden
    start, end = tape.value("start", state), tape.value("end", state)
    matrix = _ITEM * width * hidden
    inner, outer = tape.value("inner", matrix), tape.value("outer", matrix)
    time = tape.value("time", _ITEM * hidden)
    flops = 2.0 * batch * width * hidden

    def slope(name: str, y: int) -> int:
        """The network at one point."""
        there = tape.op(f"{name}.inner", (y, inner), inside, flops=flops, save_inputs=True)
        now = tape.op(f"{name}.t", (time,), _ITEM * hidden)
        added = tape.op(f"{name}.add", (there, now), inside)
        bent = tape.op(f"{name}.tanh", (added,), inside, save_output=True)
        return tape.op(f"{name}.outer", (bent, outer), state, flops=flops, save_inputs=True)

    def ahead(name: str, y: int, along: int) -> int:
        """y a little further along a slope."""
        scaled = tape.op(f"{name}.scale", (along,), state)
        return tape.op(f"{name}.ahead", (y, scaled), state)

    y = start
    for step in range(steps):
        slopes = [slope(f"{step}.1", y)]
        for stage in (2, 3, 4):
            name = f"{step}.{stage}"
            slopes.append(slope(name, ahead(name, y, slopes[-1])))
        total = slopes[0]
        for stage, weight in ((2, 2), (3, 2), (4, 1)):
            name = f"{step}.{stage}"
            part = slopes[stage - 1]
            part = tape.op(f"{name}.weigh", (part,), state) if weight > 1 else part
            total = tape.op(f"{name}.sum", (total, part), state)
        y = ahead(f"{step}.step", y, total)
    loss = tape.op("loss", (y, end), _ITEM, saves=(y, end))
    return tape.finish(loss, (start, end), weights=(inner, outer, time))
