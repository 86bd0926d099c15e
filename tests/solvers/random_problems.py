"""Random small problems for property tests: every feature of the format, nothing realistic."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from fxremat_solvers import Op, RematProblem, Value, plain_op


def random_problem(seed: int, n_ops: int) -> RematProblem:
    """Zero-byte and zero-cost items, several outputs, dead values, workspace, single-run ops."""
    rng = random.Random(seed)
    values = [Value("input", 3)]
    ops: list[Op] = []
    for i in range(n_ops):
        near = range(max(0, len(values) - 12), len(values))
        inputs = tuple(rng.sample(near, min(rng.randint(0, 3), len(near))))
        outputs: list[int] = []
        for _ in range(rng.choice([1, 1, 1, 2, 0 if i else 1])):
            outputs.append(len(values))
            values.append(Value(f"v{len(values)}", rng.choice([0, 1, 2, 3, 5])))
        ops.append(
            plain_op(
                name=f"op{i}",
                inputs=inputs,
                outputs=tuple(outputs),
                cost=rng.choice([0.0, 1.0, 2.0]),
                workspace_bytes=rng.choice([0, 0, 2]),
                recomputable=rng.random() < 0.9,
            )
        )
    ends = tuple(rng.sample(range(1, len(values)), min(2, len(values) - 1)))
    return RematProblem(tuple(ops), tuple(values), (0,), ends, None)


def problems(max_ops: int = 30) -> st.SearchStrategy[RematProblem]:
    """Random problems of up to `max_ops` ops."""
    return st.builds(random_problem, st.integers(0, 10**6), st.integers(1, max_ops))
