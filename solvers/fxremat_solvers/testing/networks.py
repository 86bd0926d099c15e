"""Training graphs of familiar shapes, written down by a `Tape`."""

from __future__ import annotations

from collections.abc import Sequence

from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.testing.tape import Tape

FLOAT = 4  # bytes


def transformer(layers: int) -> RematProblem:
    """A GPT's joint graph with unfused attention and dropout masks kept as values."""
    batch, tokens, width, heads, vocabulary = 4, 256, 256, 8, 2048
    tape = Tape()
    given = tape.value("tokens", 0)
    rows = batch * tokens
    hidden = rows * width * FLOAT
    constants: set[int] = set()
    scores = batch * heads * tokens * tokens * FLOAT
    x = tape.op("embed", [given], hidden, save_inputs=True, parameter_bytes=vocabulary * width * 4)

    def linear(name: str, source: int, wide_in: int, wide_out: int) -> int:
        return _linear(tape, name, source, rows, wide_in, wide_out)

    def norm(name: str, source: int) -> int:
        return _norm(tape, name, source, rows * 8, width * 8)

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
    loss = tape.op("loss", [x], FLOAT, save_inputs=True, extra_bytes=rows * 4)
    return tape.finish(loss, [given], constants)


def _linear(tape: Tape, name: str, source: int, rows: int, wide_in: int, wide_out: int) -> int:
    return tape.op(
        name,
        [source],
        rows * wide_out * FLOAT,
        flops=2.0 * rows * wide_in * wide_out,
        save_inputs=True,
        parameter_bytes=wide_in * wide_out * FLOAT,
    )


def _norm(tape: Tape, name: str, source: int, extra: int, parameters: int) -> int:
    nbytes = tape.values[source].nbytes
    return tape.op(
        name, [source], nbytes, save_inputs=True, extra_bytes=extra, parameter_bytes=parameters
    )


def _relu(tape: Tape, name: str, source: int) -> int:
    return tape.op(name, [source], tape.values[source].nbytes, save_output=True)


def _conv(
    tape: Tape,
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
    weights = channels * channels_in * kernel * kernel
    x = tape.op(
        name,
        [source],
        batch * channels * side * side * FLOAT,
        flops=2.0 * batch * side * side * weights,
        save_inputs=True,
        parameter_bytes=weights * FLOAT,
    )
    return _norm(tape, f"{name}.bn", x, channels * 8, channels * 8) if bn else x


def resnet(blocks: Sequence[int] = (3, 4, 6, 3), *, batch: int = 32) -> RematProblem:
    """A bottleneck ResNet's training graph (ResNet-50 by default)."""
    side, base = 224, 64
    tape = Tape()
    given = tape.value("image", 0)
    side //= 2
    x = _conv(tape, "stem", given, 3, base, side, batch, 7)
    x = _relu(tape, "stem.relu", x)
    side //= 2
    x = tape.op("pool", [x], batch * base * side * side * FLOAT, save_inputs=True)
    channels = base
    for stage, count in enumerate(blocks):
        middle = base << stage
        if stage:
            side //= 2
        for block in range(count):
            name = f"{stage}.{block}"
            y = _conv(tape, f"{name}.a", x, channels, middle, side, batch, 1)
            y = _relu(tape, f"{name}.a.relu", y)
            y = _conv(tape, f"{name}.b", y, middle, middle, side, batch)
            y = _relu(tape, f"{name}.b.relu", y)
            y = _conv(tape, f"{name}.c", y, middle, 4 * middle, side, batch, 1)
            if not block:
                x = _conv(tape, f"{name}.down", x, channels, 4 * middle, side, batch, 1)
            channels = 4 * middle
            y = tape.op(f"{name}.add", [y, x], tape.values[y].nbytes)
            x = _relu(tape, f"{name}.relu", y)
    x = tape.op("mean", [x], batch * channels * FLOAT)
    x = _linear(tape, "head", x, batch, channels, 1000)
    loss = tape.op("loss", [x], FLOAT, save_inputs=True)
    return tape.finish(loss, [given])


def unet(depth: int = 4) -> RematProblem:
    """A U-Net's training graph: skip connections from every level of the way down."""
    batch, side, base = 8, 256, 32
    tape = Tape()
    given = tape.value("image", 0)

    def double(name: str, source: int, channels_in: int, channels: int, size: int) -> int:
        for part in ("a", "b"):
            source = _conv(tape, f"{name}.{part}", source, channels_in, channels, size, batch)
            source = _relu(tape, f"{name}.{part}.relu", source)
            channels_in = channels
        return source

    x, channels, skips = given, 3, list[int]()
    for level in range(depth):
        x = double(f"down{level}", x, channels, base << level, side >> level)
        channels = base << level
        skips.append(x)
        size = side >> (level + 1)
        x = tape.op(f"pool{level}", [x], batch * channels * size * size * FLOAT, save_inputs=True)
    x = double("bottom", x, channels, base << depth, side >> depth)
    for level in reversed(range(depth)):
        size, channels = side >> level, base << level
        nbytes = batch * channels * size * size * FLOAT
        x = tape.op(f"up{level}", [x], nbytes, flops=nbytes * channels * 2.0, save_inputs=True)
        x = tape.op(f"cat{level}", [x, skips[level]], 2 * nbytes)
        x = double(f"left{level}", x, 2 * channels, channels, size)
    x = _conv(tape, "head", x, base, 2, side, batch, 1, bn=False)
    loss = tape.op("loss", [x], FLOAT, save_inputs=True)
    return tape.finish(loss, [given])


def vgg(*, batch: int = 32) -> RematProblem:
    """VGG-16's training graph: a chain of very unequal layers."""
    side = 224
    tape = Tape()
    given = tape.value("image", 0)
    x, channels_in = given, 3
    for stage, (count, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        for i in range(count):
            x = _conv(tape, f"{stage}.{i}", x, channels_in, channels, side, batch, bn=False)
            x = _relu(tape, f"{stage}.{i}.relu", x)
            channels_in = channels
        side //= 2
        nbytes = batch * channels_in * side * side * FLOAT
        x = tape.op(f"{stage}.pool", [x], nbytes, save_inputs=True)
    width = channels_in * side * side
    for i, wide in enumerate((4096, 4096, 1000)):
        x = _linear(tape, f"fc{i}", x, batch, width, wide)
        width = wide
    loss = tape.op("loss", [x], FLOAT, save_inputs=True)
    return tape.finish(loss, [given])
