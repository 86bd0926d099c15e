"""Small problems of known shape: time stepping, a stack of blocks, an unrolled net, dropout."""

from __future__ import annotations

import random
from dataclasses import replace

from fxremat_solvers import Op, RematProblem, Rerun, Value, plain_op


def time_stepping(
    n: int, *, counted_start: bool = True, reads_next: bool = False, turn: str = "none"
) -> RematProblem:
    """n forward steps and their reversal; states and gradients of size 1, forward cost 1.

    `turn` says what starts the reversal: "none" (nothing is live), "loss" (a free scalar), "seed"
    (a gradient made from nothing after the forward steps), "resident" (the same, made before
    them).
    """
    values: list[Value] = []
    ops: list[Op] = []

    def make(name: str, reads: list[int], nbytes: int, cost: float, again: bool = True) -> int:
        values.append(Value(name, nbytes))
        ops.append(plain_op(name, tuple(reads), (len(values) - 1,), cost, 0, again))
        return len(values) - 1

    gradient: int | None = None
    if turn == "resident":
        gradient = make("seed", [], 1, 0.0, again=False)
    inputs: tuple[int, ...] = ()
    if counted_start:
        states = [make("x0", [], 1, 0.0, again=False)]
    else:
        values.append(Value("x0", 1))
        states = [len(values) - 1]
        inputs = (states[0],)
    for k in range(n):
        states.append(make(f"x{k + 1}", [states[-1]], 1, 1.0))
    boundary = len(ops)
    if turn == "loss":
        gradient = make("loss", [states[-1]], 0, 0.0)
    elif turn == "seed":
        gradient = make("seed", [], 1, 0.0)
    for k in range(n, 0, -1):
        reads = [states[k - 1]] + ([states[k]] if reads_next else [])
        reads += [] if gradient is None else [gradient]
        gradient = make(f"g{k - 1}", reads, 1, 0.0)
    assert gradient is not None
    return RematProblem(tuple(ops), tuple(values), inputs, (gradient,), boundary)


def block_stack(n_blocks: int) -> RematProblem:
    """A stack of transformer-like blocks with its backward: norms, matmuls, a softmax, dropout.

    Sizes in units of one activation row; costs in arbitrary seconds: matmuls are dear per byte,
    pointwise ops cheap, as in the joint graphs this is meant for.
    """
    values: list[Value] = []
    ops: list[Op] = []

    def resident(name: str) -> int:
        values.append(Value(name, 8))
        return len(values) - 1

    def make(name: str, reads: list[int], sizes: list[int], cost: float) -> list[int]:
        first = len(values)
        values.extend(Value(f"{name}.{k}", size) for k, size in enumerate(sizes))
        made = list(range(first, len(values)))
        ops.append(plain_op(name, tuple(dict.fromkeys(reads)), tuple(made), cost))
        return made

    weights = [[resident(f"w{b}.{k}") for k in range(4)] for b in range(n_blocks)]
    tokens = resident("tokens")
    n_inputs = len(values)
    x = make("embed", [tokens], [16], 1.0)[0]
    saved: list[dict[str, int]] = []
    for b in range(n_blocks):
        w, s = weights[b], {"x": x}
        s["norm"], s["stats"] = make(f"norm{b}", [x], [16, 1], 1.0)
        s["qkv"] = make(f"qkv{b}", [s["norm"], w[0]], [48], 9.0)[0]
        s["scores"] = make(f"scores{b}", [s["qkv"]], [64], 4.0)[0]
        s["p"] = make(f"softmax{b}", [s["scores"]], [64], 3.0)[0]
        s["kept"], s["mask"] = make(f"dropout{b}", [s["p"]], [64, 16], 3.0)
        s["mixed"] = make(f"mix{b}", [s["kept"], s["qkv"]], [16], 4.0)[0]
        y = make(f"project{b}", [s["mixed"], w[1]], [16], 3.0)[0]
        s["mid"] = x = make(f"add{b}", [x, y], [16], 1.0)[0]
        s["up"] = make(f"up{b}", [x, w[2]], [64], 12.0)[0]
        s["act"] = make(f"gelu{b}", [s["up"]], [64], 3.0)[0]
        y = make(f"down{b}", [s["act"], w[3]], [16], 12.0)[0]
        x = make(f"out{b}", [x, y], [16], 1.0)[0]
        saved.append(s)
    loss = make("loss", [x], [1], 1.0)[0]
    outputs = [loss]
    boundary = len(ops)
    g = make("loss_grad", [x], [16], 1.0)[0]
    for b in reversed(range(n_blocks)):
        w, s = weights[b], saved[b]
        outputs += make(f"down_w{b}", [g, s["act"]], [8], 12.0)
        h = make(f"down_x{b}", [g, w[3]], [64], 12.0)[0]
        h = make(f"gelu_x{b}", [h, s["up"]], [64], 4.0)[0]
        outputs += make(f"up_w{b}", [h, s["mid"]], [8], 12.0)
        h = make(f"up_x{b}", [h, w[2]], [16], 12.0)[0]
        g = make(f"add_x{b}", [g, h], [16], 1.0)[0]
        outputs += make(f"project_w{b}", [g, s["mixed"]], [8], 3.0)
        h = make(f"project_x{b}", [g, w[1]], [16], 3.0)[0]
        v = make(f"mix_v{b}", [h, s["kept"]], [16], 4.0)[0]
        h = make(f"mix_p{b}", [h, s["qkv"]], [64], 4.0)[0]
        h = make(f"dropout_x{b}", [h, s["mask"]], [64], 3.0)[0]
        h = make(f"softmax_x{b}", [h, s["p"]], [64], 4.0)[0]
        h = make(f"scores_x{b}", [h, s["qkv"], v], [48], 8.0)[0]
        outputs += make(f"qkv_w{b}", [h, s["norm"]], [8], 9.0)
        h = make(f"qkv_x{b}", [h, w[0]], [16], 9.0)[0]
        h = make(f"norm_x{b}", [h, s["x"], s["stats"]], [16], 2.0)[0]
        g = make(f"sum_x{b}", [g, h], [16], 1.0)[0]
    outputs.append(g)
    return RematProblem(tuple(ops), tuple(values), tuple(range(n_inputs)), tuple(outputs), boundary)


def unrolled(
    n_steps: int, seed: int | None = None, sums_bytes: tuple[int, int] = (4, 3)
) -> RematProblem:
    """A net that reads two weights at each step: their gradients are sums over all steps.

    Forward keeps a state a step; backward reads it and adds to both sums. Sizes and costs are
    drawn where there is a seed.
    """
    draw = random.Random(seed)

    def some(usual: int, *others: int) -> int:
        return usual if seed is None else draw.choice((usual, *others))

    values = [Value("input", 0)]
    ops: list[Op] = []

    def add(name: str, reads: tuple[int, ...], nbytes: int, cost: float) -> int:
        values.append(Value(name, nbytes))
        ops.append(plain_op(name, reads, (len(values) - 1,), cost))
        return len(values) - 1

    states = [0]
    for k in range(n_steps):
        states.append(add(f"state{k}", (states[-1],), some(2, 1, 3), some(2, 1, 5)))
    boundary = len(ops)
    gradient = states[-1]
    sums: list[int | None] = [None, None]
    for k in reversed(range(n_steps)):
        gradient = add(f"gradient{k}", (gradient, states[k]), some(2, 1), some(2, 1))
        for w, nbytes in enumerate(sums_bytes):
            known = sums[w]
            reads = (gradient,) if known is None else (known, gradient)
            sums[w] = add(f"sum{w}_{k}", reads, nbytes, some(1, 2))
    outputs = tuple(x for x in (*sums, gradient) if x is not None)
    return RematProblem(tuple(ops), tuple(values), (0,), outputs, boundary)


def dropout_chain() -> RematProblem:
    """Seven ops; within 17 bytes the least schedule leaves the random op alone.

    ``wide`` is dear and ``cheap`` is not; both are made before ``draw`` and read after ``body``,
    which needs 8 bytes for itself. To draw again the state is kept, which frees nothing. So
    ``cheap`` runs twice: 55 + 4. With a state that counts where nobody reads it both would have to
    go while ``draw`` runs: 55 + 4 + 50.
    """
    values = (
        Value("x", 100),
        Value("a", 1),
        Value("wide", 5),
        Value("wide_done", 0),
        Value("cheap", 5),
        Value("cheap_done", 0),
        Value("mask", 4),
        Value("state", 4, lazy=True),
        Value("body_done", 0),
        Value("sum", 1),
        Value("end", 1),
    )
    ops = (
        plain_op("embed", (0,), (1,), 0.0),
        plain_op("wide", (1,), (2, 3), 50.0),
        plain_op("cheap", (1, 3), (4, 5), 4.0),
        Op("draw", (1, 5), (6, 7), 1.0, 0, (Rerun((1, 7), (6,), 1.0, 4),)),
        Op("body", (6,), (8,), 0.0, 8),
        plain_op("sum", (2, 4, 8), (9,), 0.0),
        plain_op("end", (9, 6), (10,), 0.0),
    )
    return RematProblem(ops, values, (0,), (10,), 5)


def with_state_always(problem: RematProblem) -> RematProblem:
    """`dropout_chain` with reruns that equal first runs: an op of its own makes the state."""
    embed, wide, cheap, draw, *rest = problem.ops
    values = [replace(value, lazy=False) for value in problem.values]
    keep = Op("keep_state", (), (7,), 0.0)
    again = plain_op("draw", (*draw.inputs, 7), (6,), draw.cost, 4)
    ops = (embed, wide, cheap, keep, again, *rest)
    return replace(problem, ops=ops, values=tuple(values))


# Two ops, as version 1 of the format has them.
OLD_DOCUMENT = {
    "format": "fxremat-problem/1",
    "values": [{"name": "a", "nbytes": 3}, {"name": "b", "nbytes": 4}],
    "ops": [
        {"name": "a", "inputs": [], "outputs": [0], "cost": 1.0, "workspace_bytes": 2},
        {"name": "b", "inputs": [0], "outputs": [1], "cost": 2, "recomputable": False},
    ],
    "inputs": [],
    "outputs": [1],
    "first_backward_op": 1,
}
