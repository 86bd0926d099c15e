"""Small problems for the solver tests: random ones from a seed, chains, and a transformer block."""

from __future__ import annotations

import random

from fxremat_solvers import Op, RematProblem, Value, plain_op


def random_dag(seed: int, n_ops: int) -> RematProblem:
    """Any shape: several outputs, workspace, free values, ops that must not be recomputed."""
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
        for _ in range(draw.choice([1, 1, 1, 2])):
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


def random_reversal(seed: int, n_ops: int) -> RematProblem:
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


def random_problem(seed: int, n_ops: int) -> RematProblem:
    """One in four of any shape, the others with a reversal (they need recomputation more often)."""
    return random_dag(seed, n_ops) if seed % 4 == 0 else random_reversal(seed, n_ops)


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
