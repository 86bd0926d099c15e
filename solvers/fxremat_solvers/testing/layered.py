"""Random layered graphs and chains.

`layered` follows the description of the random layered graphs on which Moccasin (Bartan et al.,
ICML 2023) and topological-ordering work before it (Gagrani et al., NeurIPS 2022) are evaluated:
nodes in layers, edges mostly to the next layer and some that skip, sizes and durations at random.
`layered_network` keeps to how the graphs published with Moccasin look: neighbours read neighbours.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

from fxremat_solvers.model.problem import Op, RematProblem, Value, plain_op


def chain(n: int) -> RematProblem:
    """A uniform chain: n forward steps, a loss, n backward steps that read state and gradient.

    The memory model of a time-stepping loop: states x_0 (given) .. x_n and gradients all have one
    byte; backward step i reads x_i and the gradient of x_{i+1}. Every op costs 1.
    """
    nbytes, cost = 1, 1.0
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


def layered(n: int, *, seed: int = 0) -> RematProblem:
    """A random layered graph of `n` ops, one value each, no backward part.

    Layers hold the square root of n ops on average. Every op after the first layer reads one op
    of the layer before; the remaining edges (in all those of Moccasin's graphs, 236 for n=100 to
    5,875 for n=1000) come from the layer before, or one in five from any earlier layer. Sizes and
    costs are uniform on 1..100, independent.
    The order given is layer by layer, as in those papers. Sinks are the outputs.
    """
    rng = random.Random(seed)
    wanted = round(n * (2.36 + 3.5 * (n - 100) / 900))
    mean_width = max(2, round(n**0.5))
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
        far = rng.random() < 0.2
        layer = rng.randrange(layer_of[node]) if far else layer_of[node] - 1
        source = rng.choice(layers[layer])
        if source not in sources[node]:
            sources[node].add(source)
            made += 1
    drawn = [(source, node) for node in range(n) for source in sources[node]]
    nbytes = [rng.randint(1, 100) for _ in range(n)]
    return dag(range(n), drawn, nbytes, [rng.randint(1, 100) for _ in range(n)])


def layered_network(n: int, *, seed: int = 0) -> RematProblem:
    """A random layered graph whose layers are ordered, between one source and one sink.

    As the graphs that Moccasin's authors published look (after Gagrani et al., appendix A): layers
    of 20 ops for n=1000, up to three quarters more or less; an op reads the ops of the layer before
    that lie within 14 % of the layer of its own position; of all edges 14 % go to any later layer.
    Sizes are drawn from four Gaussians, costs are uniform on 0..999. The order given is depth
    first: of the ops that can run, the one that became ready last.
    """
    rng = random.Random(seed)
    mean = n**0.5 * 0.63
    layers = _layers(rng, n, mean * 0.25, mean * 1.75)
    edges = set[tuple[int, int]]()
    for above, below in pairwise(layers):
        edges.update(_neighbours(rng, above, below, 0.14))
    layer_of = [k for k, layer in enumerate(layers) for _ in layer]
    wanted = round(len(edges) / (1 - 0.14))
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
