"""Random small problems: every feature of the format, nothing realistic."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import strategies as st

from fxremat_solvers import Op, RematProblem, Rerun, Value, plain_op


def random_problem(seed: int, n_ops: int) -> RematProblem:
    """One in four of any shape, the others with a reversal (they need recomputation more often)."""
    any_shape = seed % 4 == 0 or n_ops < 4
    return _any_shape(seed, n_ops) if any_shape else _reversal(seed, n_ops)


def problems(max_ops: int = 30) -> st.SearchStrategy[RematProblem]:
    """Random problems of up to `max_ops` ops."""
    return st.builds(random_problem, st.integers(0, 10**6), st.integers(1, max_ops))


def random_reruns(seed: int, n_ops: int) -> RematProblem:
    """A random problem some of whose ops are like random ones, or like BatchNorm, or just differ.

    A random op keeps a lazy state, which its rerun reads and sets aside; BatchNorm makes
    statistics in its first run only. Others cost less, or more, read less or something earlier,
    or make values that are lazy.
    """
    problem = random_problem(seed, n_ops)
    draw = random.Random(seed)
    values, ops = list(problem.values), list(problem.ops)
    outputs = list(problem.outputs)
    order: int | None = None  # what keeps random ops in order
    for k, op in enumerate(ops):
        kind = draw.choice(["random", "statistics", "other", "plain"])
        if not op.reruns or kind == "plain":
            continue
        reads, makes = op.inputs, op.outputs
        again = op.first_run
        if kind == "random":
            nbytes = draw.randint(0, 4)
            values.append(Value(f"state{k}", nbytes, lazy=True))
            state = len(values) - 1
            makes = (*makes, state)
            again = replace(
                again, inputs=(*reads, state), workspace_bytes=op.workspace_bytes + nbytes
            )
            if order is not None:
                reads = (*reads, order)
            values.append(Value(f"order{k}", 0))
            order = len(values) - 1
            makes = (*makes, order)
        elif kind == "statistics":
            values.append(Value(f"statistics{k}", draw.randint(0, 3)))
            makes = (*makes, len(values) - 1)
            if draw.random() < 0.7:
                outputs.append(len(values) - 1)
        else:
            again = _changed(draw, problem, k)
        ops[k] = Op(op.name, reads, makes, op.cost, op.workspace_bytes, (again,))
    values = [replace(v, lazy=v.lazy or draw.random() < 0.1) for v in values]
    return RematProblem(
        tuple(ops), tuple(values), problem.inputs, tuple(outputs), problem.first_backward_op
    )


def with_large_sizes(problem: RematProblem, seed: int) -> RematProblem:
    """The same graph with sizes like real ones, so that a budget can be missed by a byte."""
    draw = random.Random(seed)
    values = (replace(v, nbytes=v.nbytes * 100_000 + draw.randint(0, 999)) for v in problem.values)
    return replace(problem, values=tuple(values))


def with_reruns(problem: RematProblem, seed: int) -> tuple[int, ...]:
    """A schedule in the problem's order that runs a third of what may run again before each op."""
    steps: list[int] = []
    for k in range(len(problem.ops)):
        steps += [j for j in range(k) if problem.ops[j].reruns and (seed + j + k) % 3 == 0]
        steps.append(k)
    return tuple(steps)


def _changed(draw: random.Random, problem: RematProblem, k: int) -> Rerun:
    op = problem.ops[k]
    reads = [v for v in op.inputs if draw.random() < 0.8]
    earlier = [v for v, maker in enumerate(problem.producer) if maker < k and v not in reads]
    if earlier and draw.random() < 0.4:
        reads.append(draw.choice(earlier))
    makes = [v for v in op.outputs if draw.random() < 0.9]
    return Rerun(tuple(reads), tuple(makes), float(draw.randint(0, 6)), draw.choice([0, 0, 2]))


def _any_shape(seed: int, n_ops: int) -> RematProblem:
    """Several outputs or none, workspace, free ops and values, ops that run once."""
    draw = random.Random(seed)
    values = [Value(f"input{k}", draw.randint(0, 4)) for k in range(draw.randint(0, 2))]
    inputs = tuple(range(len(values)))
    ops: list[Op] = []
    for k in range(n_ops):
        reads = draw.sample(
            range(len(values)), min(len(values), draw.randint(0 if k == 0 else 1, 3))
        )
        if k and draw.random() < 0.6 and len(values) - 1 not in reads:
            reads.append(len(values) - 1)
        made: list[int] = []
        for _ in range(draw.choice([1, 1, 1, 2, 0 if k else 1])):
            values.append(Value(f"value{len(values)}", draw.randint(0, 5)))
            made.append(len(values) - 1)
        cost = float(draw.randint(0, 6))
        workspace = draw.choice([0, 0, 0, 1, 3])
        ops.append(
            plain_op(f"op{k}", tuple(reads), tuple(made), cost, workspace, draw.random() < 0.85)
        )
    made = [v for v in range(len(values)) if v not in inputs]
    outputs = {made[-1], *draw.sample(made, min(len(made), draw.randint(0, 2)))}
    boundary = draw.choice([None, n_ops // 2])
    return RematProblem(tuple(ops), tuple(values), inputs, tuple(sorted(outputs)), boundary)


def _reversal(seed: int, n_ops: int) -> RematProblem:
    """A forward chain with skips, then ops that read its values in reverse."""
    draw = random.Random(seed)
    values = [Value("input", 0)]
    ops: list[Op] = []
    states = [0]
    for k in range(draw.randint(2, n_ops // 2)):
        reads = {states[-1]} | ({draw.choice(states)} if draw.random() < 0.3 else set())
        made: list[int] = []
        for _ in range(draw.choice([1, 1, 1, 2])):
            values.append(Value(f"state{len(values)}", draw.randint(1, 6)))
            made.append(len(values) - 1)
        cost, workspace = float(draw.randint(1, 6)), draw.choice([0, 0, 0, 1, 3])
        again = draw.random() < 0.9
        ops.append(
            plain_op(f"forward{k}", tuple(sorted(reads)), tuple(made), cost, workspace, again)
        )
        states.extend(reversed(made))
    boundary = len(ops)
    gradient: int | None = None
    outputs: list[int] = []
    left = states[1:]
    while left and len(ops) < n_ops:
        reads = {left.pop()} | (set() if gradient is None else {gradient})
        if draw.random() < 0.4:
            reads.add(draw.choice(states))
        values.append(Value(f"gradient{len(values)}", draw.randint(1, 3)))
        gradient = len(values) - 1
        if draw.random() < 0.2:
            outputs.append(gradient)
        cost, workspace = float(draw.randint(1, 4)), draw.choice([0, 0, 1])
        again = draw.random() < 0.9
        name = f"backward{len(ops)}"
        ops.append(plain_op(name, tuple(sorted(reads)), (gradient,), cost, workspace, again))
    assert gradient is not None
    finals = tuple(dict.fromkeys([*outputs, gradient]))
    return RematProblem(tuple(ops), tuple(values), (0,), finals, boundary)
