"""The recurrences of `benchmarks.loops` in JAX: nested checkpoints, equinox's checkpointed loop.

python benchmarks/loops_peers.py PROBLEM.npz STEPS ROUNDS

Run by `benchmarks.loops` with the Python of an environment that has them (`--peers-python`). Reads
a problem with the plain loop's gradients, and prints a row a method as JSON. A peak is what XLA
allocates for the compiled function, temporary and returned; times are processor times of one
thread, without compiling.
"""
# pyright: basic

from __future__ import annotations

import functools
import json
import math
import sys
import time

import equinox
import jax
import jax.numpy as jnp
import numpy as np

SLOTS = 20


def heat(leaves, u, _):
    (field,) = leaves
    around = jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1)
    return u + 0.1 * field * (around + jnp.roll(u, -1, 1) - 4 * u) + 0.01 * u * (1 - u)


def ode(steps, leaves, y, i):
    inner, bias, outer, last = leaves
    h = 1 / steps
    t = h * i

    def slope(time, y):
        return jnp.tanh(y @ inner.T + bias + time) @ outer.T + last

    first = slope(t, y)
    second = slope(t + h / 2, y + h / 2 * first)
    third = slope(t + h / 2, y + h / 2 * second)
    fourth = slope(t + h, y + h * third)
    return y + h / 6 * (first + 2 * second + 2 * third + fourth)


def plain(step, steps, leaves, y):
    return jax.lax.scan(lambda y, i: (step(leaves, y, i), None), y, jnp.arange(steps))[0]


def nested(step, steps, leaves, y):
    """Scans of about sqrt(n) steps, each checkpointed."""
    length = max(k for k in range(1, math.isqrt(steps) + 1) if steps % k == 0)

    @jax.checkpoint
    def several(y, begin):
        inner = lambda y, k: (step(leaves, y, begin + k), None)  # noqa: E731
        return jax.lax.scan(inner, y, jnp.arange(length))[0]

    outer = lambda y, begin: (several(y, begin), None)  # noqa: E731
    return jax.lax.scan(outer, y, jnp.arange(0, steps, length))[0]


def checkpointed(step, steps, leaves, y):
    final, _ = equinox.internal.while_loop(
        lambda state: state[1] < steps,
        lambda state: (step(leaves, state[0], state[1]), state[1] + 1),
        (y, jnp.asarray(0)),
        max_steps=steps,
        kind="checkpointed",
        checkpoints=SLOTS,
    )
    return final


METHODS = {
    "jax, plain scan": plain,
    "jax.checkpoint, nested scans": nested,
    f"equinox, {SLOTS} checkpoints": checkpointed,
}


def main() -> None:
    path, steps, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    given = np.load(path)
    number = sum(name.startswith("leaf") for name in given)
    leaves = tuple(jnp.asarray(given[f"leaf{k}"]) for k in range(number))
    exact = np.concatenate([given[f"gradient{k}"].ravel() for k in range(number)])
    first = jnp.asarray(given["first"])
    step = heat if number == 1 else functools.partial(ode, steps)
    runs, rows = {}, {}
    for name, method in METHODS.items():
        loss = lambda leaves, y, m=method: (m(step, steps, leaves, y) ** 2).mean()  # noqa: E731
        run = jax.jit(jax.grad(loss)).lower(leaves, first).compile()
        memory = run.memory_analysis()
        found = np.concatenate([np.asarray(g).ravel() for g in run(leaves, first)])
        runs[name] = run
        rows[name] = {
            "method": name,
            "peak_bytes": int(memory.temp_size_in_bytes + memory.output_size_in_bytes),
            "evaluations": {plain: steps, nested: 2 * steps}.get(method),
            "bitwise": bool((found == exact).all()),
            "error": float(np.linalg.norm(found - exact) / np.linalg.norm(exact)),
            "seconds": math.inf,
        }
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.process_time()
            jax.block_until_ready(run(leaves, first))
            rows[name]["seconds"] = min(rows[name]["seconds"], time.process_time() - begin)
    versions = {"jax": jax.__version__, "equinox": equinox.__version__}
    for row in rows.values():
        print(json.dumps({**row, "peers": versions}))


if __name__ == "__main__":
    main()
