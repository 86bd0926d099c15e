"""Synthetic problems: random layered graphs, chains, and training graphs of familiar shapes.

`layered` follows the description of the random layered graphs on which Moccasin (Bartan et al.,
ICML 2023) and topological-ordering work before it (Gagrani et al., NeurIPS 2022) are evaluated:
nodes in layers, edges mostly to the next layer and some that skip, sizes and durations at random.
`layered_network` keeps to how the graphs published with Moccasin look: neighbours read neighbours.
The training graphs are made by a small tape: each forward op states what its gradient reads, and
the backward part is derived in reverse, gradients of shared values summed one by one. Sizes and
costs come from shapes (bytes moved and multiply-adds), not from a clock: they are reproducible.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from fxremat_solvers.problem import Op, RematProblem, Value, plain_op

# The cost model of the training graphs, in seconds: a mid-range accelerator.
_FLOPS_PER_S = 1e13
_BYTES_PER_S = 1e12
_LAUNCH_S = 2e-6
_FLOAT = 4


def chain(n: int, nbytes: int = 1, cost: float = 1.0) -> RematProblem:
    """A uniform chain: n forward steps, a loss, n backward steps that read state and gradient.

    The memory model of a time-stepping loop: states x_0 (given) .. x_n and gradients all have
    `nbytes`; backward step i reads x_i and the gradient of x_{i+1}.
    """
    values = [Value("x0", 0)]
    ops: list[Op] = []
    for i in range(n):
        values.append(Value(f"x{i + 1}", nbytes))
        ops.append(plain_op(f"f{i}", (i,), (i + 1,), cost))
    gradient = len(values)
    values.append(Value("g", nbytes))
    ops.append(plain_op("loss", (n,), (gradient,), cost))
    for i in reversed(range(n)):
        values.append(Value(f"g{i}", nbytes))
        ops.append(plain_op(f"b{i}", (i, gradient), (len(values) - 1,), cost))
        gradient = len(values) - 1
    return RematProblem(tuple(ops), tuple(values), (0,), (gradient,), n)


def layered(
    n: int,
    *,
    seed: int = 0,
    edges: int | None = None,
    width: int | None = None,
    skip_fraction: float = 0.2,
) -> RematProblem:
    """A random layered graph of `n` ops, one value each, no backward part.

    Layers hold `width` ops on average (default: the square root of n). Every op after the first
    layer reads one op of the layer before; the remaining of `edges` edges (default: those of
    Moccasin's graphs, 236 for n=100 to 5,875 for n=1000) come from the layer before, or with
    `skip_fraction` from any earlier layer. Sizes and costs are uniform on 1..100, independent.
    The order given is layer by layer, as in those papers. Sinks are the outputs.
    """
    rng = random.Random(seed)
    wanted = edges if edges is not None else round(n * (2.36 + 3.5 * (n - 100) / 900))
    mean_width = width if width is not None else max(2, round(n**0.5))
    layers: list[list[int]] = []
    placed = 0
    while placed < n:
        size = min(n - placed, rng.randint(max(1, mean_width // 2), mean_width + mean_width // 2))
        layers.append(list(range(placed, placed + size)))
        placed += size
    sources: list[set[int]] = [set() for _ in range(n)]
    layer_of = [k for k, layer in enumerate(layers) for _ in layer]
    for k in range(1, len(layers)):
        for node in layers[k]:
            sources[node].add(rng.choice(layers[k - 1]))
    made = sum(len(s) for s in sources)
    tries = 0
    while made < wanted and tries < 50 * n:
        tries += 1
        node = rng.randrange(len(layers[0]), n)
        far = rng.random() < skip_fraction
        layer = rng.randrange(layer_of[node]) if far else layer_of[node] - 1
        source = rng.choice(layers[layer])
        if source not in sources[node]:
            sources[node].add(source)
            made += 1
    drawn = [(source, node) for node in range(n) for source in sources[node]]
    nbytes = [rng.randint(1, 100) for _ in range(n)]
    return dag(range(n), drawn, nbytes, [rng.randint(1, 100) for _ in range(n)])


def layered_network(
    n: int,
    *,
    seed: int = 0,
    width: float | None = None,
    variability: float = 0.75,
    reach: float = 0.14,
    skip_fraction: float = 0.14,
) -> RematProblem:
    """A random layered graph whose layers are ordered, between one source and one sink.

    As the graphs that Moccasin's authors published look (after Gagrani et al., appendix A): layers
    of `width` ops (default: 20 for n=1000) up to `variability` more or less; an op reads the ops of
    the layer before that lie within `reach` (a share of the layer) of its own position; of all
    edges `skip_fraction` go to any later layer. Sizes are drawn from four Gaussians, costs are
    uniform on 0..999. The order given is depth first: of the ops that can run, the one that became
    ready last.
    """
    rng = random.Random(seed)
    mean = width if width is not None else n**0.5 * 0.63
    layers = _layers(rng, n, mean * (1 - variability), mean * (1 + variability))
    edges = set[tuple[int, int]]()
    for above, below in pairwise(layers):
        edges.update(_neighbours(rng, above, below, reach))
    layer_of = [k for k, layer in enumerate(layers) for _ in layer]
    wanted = round(len(edges) / (1 - skip_fraction))
    last = len(layers) - 2  # the sink takes none
    early = [u for u in range(1, n - 1) if layer_of[u] + 2 <= last]
    tries = 0
    while early and len(edges) < wanted and tries < 50 * n:
        tries += 1
        source = rng.choice(early)
        edges.add((source, rng.choice(layers[rng.randint(layer_of[source] + 2, last)])))
    order = _depth_first(rng, n, edges)
    nbytes = [_size(rng) for _ in order]
    return dag(order, edges, nbytes, [rng.randrange(1000) for _ in order])


def dag(
    order: Sequence[int],
    edges: Iterable[tuple[int, int]],
    nbytes: Sequence[int],
    costs: Sequence[float],
) -> RematProblem:
    """A graph of nodes that make one value each, run in `order`; bytes and costs follow it.

    `edges` lead from a node to one that reads it. Nodes that nobody reads are the outputs.
    """
    at = {node: i for i, node in enumerate(order)}
    reads: list[list[int]] = [[] for _ in order]
    for source, target in edges:
        reads[at[target]].append(at[source])
    read = set[int]().union(*reads)
    values = tuple(Value(f"v{node}", size) for node, size in zip(order, nbytes, strict=True))
    ops = tuple(
        plain_op(f"op{node}", tuple(sorted(reads[i])), (i,), float(costs[i]))
        for i, node in enumerate(order)
    )
    outputs = tuple(i for i in range(len(ops)) if i not in read)
    return RematProblem(ops, values, (), outputs, None)


def _layers(rng: random.Random, n: int, least: float, most: float) -> list[list[int]]:
    """Nodes in layers of random widths; the first and the last hold one."""
    layers = [[0]]
    placed = 1
    while placed < n - 1:
        size = min(n - 1 - placed, max(1, round(rng.uniform(least, most))))
        layers.append(list(range(placed, placed + size)))
        placed += size
    return [*layers, [n - 1]]


def _neighbours(
    rng: random.Random, above: Sequence[int], below: Sequence[int], reach: float
) -> set[tuple[int, int]]:
    """Edges between two layers, to what lies near; every node has one at least."""
    edges = set[tuple[int, int]]()
    position = [(j + 0.5) / len(below) for j in range(len(below))]
    for i, source in enumerate(above):
        low = i / len(above) - reach * rng.uniform(0.5, 1)
        high = (i + 1) / len(above) + reach * rng.uniform(0.5, 1)
        near = [below[j] for j, x in enumerate(position) if low <= x <= high]
        edges.update((source, node) for node in near or [below[i * len(below) // len(above)]])
    reached = {node for _, node in edges}
    for j, node in enumerate(below):
        if node not in reached:
            edges.add((above[j * len(above) // len(below)], node))
    return edges


def _depth_first(rng: random.Random, n: int, edges: Collection[tuple[int, int]]) -> list[int]:
    """A topological order from node 0: of the nodes that can run, the one that could last."""
    targets: list[list[int]] = [[] for _ in range(n)]
    waits = [0] * n
    for source, target in sorted(edges):
        targets[source].append(target)
        waits[target] += 1
    rng.shuffle(targets[0])
    ready, order = [0], list[int]()
    while ready:
        node = ready.pop()
        order.append(node)
        for target in targets[node]:
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    return order


def _size(rng: random.Random) -> int:
    """Bytes of a node: a mixture of Gaussians, cut off at 50."""
    mean, spread = rng.choices(((0.5, 0.5), (1, 1), (3, 1), (5, 1)), (3, 3, 3, 1))[0]
    while (size := rng.gauss(mean, spread)) < 0.05:
        pass
    return round(1000 * size)


@dataclass(frozen=True)
class _Node:
    """A forward op on the tape: what it reads and makes, and what its gradient reads."""

    name: str
    inputs: tuple[int, ...]
    output: int
    cost: float
    saved: tuple[int, ...]
    parameter_bytes: int
    workspace_bytes: int
    extra: int | None
    recomputable: bool


@dataclass
class _Tape:
    """Builds the forward part; `finish` derives the backward part."""

    values: list[Value] = field(default_factory=list[Value])
    nodes: list[_Node] = field(default_factory=list[_Node])

    def value(self, name: str, nbytes: int) -> int:
        self.values.append(Value(name, nbytes))
        return len(self.values) - 1

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        nbytes: int,
        *,
        flops: float = 0.0,
        save_inputs: bool = False,
        save_output: bool = False,
        saves: Sequence[int] = (),
        parameter_bytes: int = 0,
        extra_bytes: int = 0,
        workspace_bytes: int = 0,
        recomputable: bool = True,
    ) -> int:
        """One forward op; `extra_bytes` is a second output that its gradient reads."""
        output = self.value(name, nbytes)
        extra = self.value(f"{name}.extra", extra_bytes) if extra_bytes else None
        moved = nbytes + sum(self.values[v].nbytes for v in inputs) + extra_bytes
        cost = _LAUNCH_S + max(flops / _FLOPS_PER_S, moved / _BYTES_PER_S)
        saved = (*saves, *(inputs if save_inputs else ()), *((output,) if save_output else ()))
        if extra is not None:
            saved = (*saved, extra)
        node = _Node(
            name,
            tuple(inputs),
            output,
            cost,
            saved,
            parameter_bytes,
            workspace_bytes,
            extra,
            recomputable,
        )
        self.nodes.append(node)
        return output

    def finish(
        self, loss: int, given: Sequence[int], constants: Collection[int] = ()
    ) -> RematProblem:
        """The joint graph: forward, then gradients in reverse; parameter gradients are outputs."""
        ops = [
            plain_op(
                node.name,
                node.inputs,
                (node.output,) if node.extra is None else (node.output, node.extra),
                node.cost,
                node.workspace_bytes,
                node.recomputable,
            )
            for node in self.nodes
        ]
        first_backward = len(ops)
        outputs = [loss]
        gradient: dict[int, int] = {loss: self.value("grad.loss", self.values[loss].nbytes)}
        ops.append(plain_op("grad.loss", (loss,), (gradient[loss],), _LAUNCH_S))
        for node in reversed(self.nodes):
            if node.output not in gradient:
                continue
            made: list[int] = []
            for source in dict.fromkeys(node.inputs):
                if source in given or source in constants:
                    continue
                made.append(self.value(f"grad.{node.name}.{source}", self.values[source].nbytes))
            targets = [
                s for s in dict.fromkeys(node.inputs) if s not in given and s not in constants
            ]
            parameter: list[int] = []
            if node.parameter_bytes:
                parameter.append(self.value(f"grad.{node.name}.w", node.parameter_bytes))
                outputs.extend(parameter)
            reads = tuple(dict.fromkeys((gradient[node.output], *node.saved)))
            share = 2.0 if node.parameter_bytes else 1.0
            ops.append(
                plain_op(
                    f"grad.{node.name}",
                    reads,
                    (*made, *parameter),
                    _LAUNCH_S + share * (node.cost - _LAUNCH_S),
                    node.workspace_bytes,
                )
            )
            for source, part in zip(targets, made, strict=True):
                if source in gradient:
                    total = self.value(f"grad.{source}", self.values[source].nbytes)
                    nbytes = self.values[source].nbytes
                    cost = _LAUNCH_S + 3 * nbytes / _BYTES_PER_S
                    ops.append(plain_op(f"add.{source}", (gradient[source], part), (total,), cost))
                    gradient[source] = total
                else:
                    gradient[source] = part
        return RematProblem(
            tuple(ops), tuple(self.values), tuple(given), tuple(outputs), first_backward
        )


def transformer(
    layers: int,
    *,
    batch: int = 4,
    tokens: int = 256,
    width: int = 256,
    heads: int = 8,
    vocabulary: int = 2048,
) -> RematProblem:
    """A GPT's joint graph with unfused attention and dropout masks kept as values."""
    tape = _Tape()
    given = tape.value("tokens", 0)
    rows = batch * tokens
    hidden = rows * width * _FLOAT
    constants: set[int] = set()
    scores = batch * heads * tokens * tokens * _FLOAT
    x = tape.op("embed", [given], hidden, save_inputs=True, parameter_bytes=vocabulary * width * 4)

    def linear(name: str, source: int, wide_in: int, wide_out: int) -> int:
        return tape.op(
            name,
            [source],
            rows * wide_out * _FLOAT,
            flops=2.0 * rows * wide_in * wide_out,
            save_inputs=True,
            parameter_bytes=wide_in * wide_out * _FLOAT,
        )

    def norm(name: str, source: int) -> int:
        return tape.op(
            name,
            [source],
            hidden,
            save_inputs=True,
            extra_bytes=rows * 8,
            parameter_bytes=width * 8,
        )

    def dropout(name: str, source: int, nbytes: int) -> int:
        mask = tape.op(f"{name}.mask", [given], nbytes // 4)
        constants.add(mask)
        return tape.op(name, [source, mask], nbytes, saves=[mask])

    for i in range(layers):
        h = norm(f"{i}.ln1", x)
        q, k, v = (linear(f"{i}.{part}", h, width, width) for part in "qkv")
        flops = 2.0 * batch * tokens * tokens * width
        s = tape.op(f"{i}.scores", [q, k], scores, flops=flops, save_inputs=True)
        s = tape.op(f"{i}.scale", [s], scores)
        s = tape.op(f"{i}.softmax", [s], scores, save_output=True)
        s = dropout(f"{i}.attn_drop", s, scores)
        a = tape.op(f"{i}.attend", [s, v], hidden, flops=flops, save_inputs=True)
        a = tape.op(f"{i}.merge", [a], hidden)
        a = linear(f"{i}.proj", a, width, width)
        a = dropout(f"{i}.drop1", a, hidden)
        x = tape.op(f"{i}.add1", [x, a], hidden)
        h = norm(f"{i}.ln2", x)
        h = linear(f"{i}.up", h, width, 4 * width)
        h = tape.op(f"{i}.gelu", [h], 4 * hidden, save_inputs=True)
        h = linear(f"{i}.down", h, 4 * width, width)
        h = dropout(f"{i}.drop2", h, hidden)
        x = tape.op(f"{i}.add2", [x, h], hidden)
    x = norm("ln", x)
    x = linear("head", x, width, vocabulary)
    loss = tape.op("loss", [x], _FLOAT, save_inputs=True, extra_bytes=rows * 4)
    return tape.finish(loss, [given], constants)


def _conv(
    tape: _Tape,
    name: str,
    source: int,
    channels_in: int,
    channels: int,
    side: int,
    batch: int,
    kernel: int = 3,
    *,
    bn: bool = True,
) -> int:
    nbytes = batch * channels * side * side * _FLOAT
    x = tape.op(
        name,
        [source],
        nbytes,
        flops=2.0 * batch * side * side * channels * channels_in * kernel * kernel,
        save_inputs=True,
        parameter_bytes=channels * channels_in * kernel * kernel * _FLOAT,
    )
    if bn:
        x = tape.op(
            f"{name}.bn",
            [x],
            nbytes,
            save_inputs=True,
            extra_bytes=channels * 8,
            parameter_bytes=channels * 8,
        )
    return x


def resnet(
    blocks: Sequence[int] = (3, 4, 6, 3), *, batch: int = 32, side: int = 224, base: int = 64
) -> RematProblem:
    """A bottleneck ResNet's training graph (ResNet-50 by default)."""
    tape = _Tape()
    given = tape.value("image", 0)
    side //= 2
    x = _conv(tape, "stem", given, 3, base, side, batch, 7)
    x = tape.op("stem.relu", [x], tape.values[x].nbytes, save_output=True)
    side //= 2
    x = tape.op("pool", [x], batch * base * side * side * _FLOAT, save_inputs=True)
    channels = base
    for stage, count in enumerate(blocks):
        middle = base << stage
        if stage:
            side //= 2
        for block in range(count):
            name = f"{stage}.{block}"
            y = _conv(tape, f"{name}.a", x, channels, middle, side, batch, 1)
            y = tape.op(f"{name}.a.relu", [y], tape.values[y].nbytes, save_output=True)
            y = _conv(tape, f"{name}.b", y, middle, middle, side, batch)
            y = tape.op(f"{name}.b.relu", [y], tape.values[y].nbytes, save_output=True)
            y = _conv(tape, f"{name}.c", y, middle, 4 * middle, side, batch, 1)
            if not block:
                x = _conv(tape, f"{name}.down", x, channels, 4 * middle, side, batch, 1)
            channels = 4 * middle
            y = tape.op(f"{name}.add", [y, x], tape.values[y].nbytes)
            x = tape.op(f"{name}.relu", [y], tape.values[y].nbytes, save_output=True)
    x = tape.op("mean", [x], batch * channels * _FLOAT)
    x = tape.op(
        "head",
        [x],
        batch * 1000 * _FLOAT,
        flops=2.0 * batch * channels * 1000,
        save_inputs=True,
        parameter_bytes=channels * 1000 * _FLOAT,
    )
    loss = tape.op("loss", [x], _FLOAT, save_inputs=True)
    return tape.finish(loss, [given])


def unet(depth: int = 4, *, batch: int = 8, side: int = 256, base: int = 32) -> RematProblem:
    """A U-Net's training graph: skip connections from every level of the way down."""
    tape = _Tape()
    given = tape.value("image", 0)

    def double(name: str, source: int, channels_in: int, channels: int, size: int) -> int:
        for part in ("a", "b"):
            source = _conv(tape, f"{name}.{part}", source, channels_in, channels, size, batch)
            source = tape.op(
                f"{name}.{part}.relu", [source], tape.values[source].nbytes, save_output=True
            )
            channels_in = channels
        return source

    x, channels, skips = given, 3, list[int]()
    for level in range(depth):
        x = double(f"down{level}", x, channels, base << level, side >> level)
        channels = base << level
        skips.append(x)
        size = side >> (level + 1)
        x = tape.op(f"pool{level}", [x], batch * channels * size * size * _FLOAT, save_inputs=True)
    x = double("bottom", x, channels, base << depth, side >> depth)
    for level in reversed(range(depth)):
        size, channels = side >> level, base << level
        nbytes = batch * channels * size * size * _FLOAT
        x = tape.op(f"up{level}", [x], nbytes, flops=nbytes * channels * 2.0, save_inputs=True)
        x = tape.op(f"cat{level}", [x, skips[level]], 2 * nbytes)
        x = double(f"left{level}", x, 2 * channels, channels, size)
    x = _conv(tape, "head", x, base, 2, side, batch, 1, bn=False)
    loss = tape.op("loss", [x], _FLOAT, save_inputs=True)
    return tape.finish(loss, [given])


def vgg(*, batch: int = 32, side: int = 224) -> RematProblem:
    """VGG-16's training graph: a chain of very unequal layers."""
    tape = _Tape()
    given = tape.value("image", 0)
    x, channels_in = given, 3
    for stage, (count, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        for i in range(count):
            x = _conv(tape, f"{stage}.{i}", x, channels_in, channels, side, batch, bn=False)
            x = tape.op(f"{stage}.{i}.relu", [x], tape.values[x].nbytes, save_output=True)
            channels_in = channels
        side //= 2
        x = tape.op(
            f"{stage}.pool", [x], batch * channels_in * side * side * _FLOAT, save_inputs=True
        )
    width = channels_in * side * side
    for i, wide in enumerate((4096, 4096, 1000)):
        x = tape.op(
            f"fc{i}",
            [x],
            batch * wide * _FLOAT,
            flops=2.0 * batch * width * wide,
            save_inputs=True,
            parameter_bytes=width * wide * _FLOAT,
        )
        width = wide
    loss = tape.op("loss", [x], _FLOAT, save_inputs=True)
    return tape.finish(loss, [given])
