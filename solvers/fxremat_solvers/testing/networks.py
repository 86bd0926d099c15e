"""Training graphs of familiar shapes, written down by a `Tape`."""

from __future__ import annotations

from collections.abc import Sequence

from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.testing.tape import Tape

FLOAT = 4  # bytes


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
    tape = Tape()
    given = tape.value("tokens", 0)
    rows = batch * tokens
    hidden = rows * width * FLOAT
    constants: set[int] = set()
    scores = batch * heads * tokens * tokens * FLOAT
    x = tape.op("embed", [given], hidden, save_inputs=True, parameter_bytes=vocabulary * width * 4)

    def linear(name: str, source: int, wide_in: int, wide_out: int) -> int:
        return tape.op(
            name,
            [source],
            rows * wide_out * FLOAT,
            flops=2.0 * rows * wide_in * wide_out,
            save_inputs=True,
            parameter_bytes=wide_in * wide_out * FLOAT,
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
    loss = tape.op("loss", [x], FLOAT, save_inputs=True, extra_bytes=rows * 4)
    return tape.finish(loss, [given], constants)


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
    nbytes = batch * channels * side * side * FLOAT
    x = tape.op(
        name,
        [source],
        nbytes,
        flops=2.0 * batch * side * side * channels * channels_in * kernel * kernel,
        save_inputs=True,
        parameter_bytes=channels * channels_in * kernel * kernel * FLOAT,
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
    tape = Tape()
    given = tape.value("image", 0)
    side //= 2
    x = _conv(tape, "stem", given, 3, base, side, batch, 7)
    x = tape.op("stem.relu", [x], tape.values[x].nbytes, save_output=True)
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
            y = tape.op(f"{name}.a.relu", [y], tape.values[y].nbytes, save_output=True)
            y = _conv(tape, f"{name}.b", y, middle, middle, side, batch)
            y = tape.op(f"{name}.b.relu", [y], tape.values[y].nbytes, save_output=True)
            y = _conv(tape, f"{name}.c", y, middle, 4 * middle, side, batch, 1)
            if not block:
                x = _conv(tape, f"{name}.down", x, channels, 4 * middle, side, batch, 1)
            channels = 4 * middle
            y = tape.op(f"{name}.add", [y, x], tape.values[y].nbytes)
            x = tape.op(f"{name}.relu", [y], tape.values[y].nbytes, save_output=True)
    x = tape.op("mean", [x], batch * channels * FLOAT)
    x = tape.op(
        "head",
        [x],
        batch * 1000 * FLOAT,
        flops=2.0 * batch * channels * 1000,
        save_inputs=True,
        parameter_bytes=channels * 1000 * FLOAT,
    )
    loss = tape.op("loss", [x], FLOAT, save_inputs=True)
    return tape.finish(loss, [given])


def unet(depth: int = 4, *, batch: int = 8, side: int = 256, base: int = 32) -> RematProblem:
    """A U-Net's training graph: skip connections from every level of the way down."""
    tape = Tape()
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


def vgg(*, batch: int = 32, side: int = 224) -> RematProblem:
    """VGG-16's training graph: a chain of very unequal layers."""
    tape = Tape()
    given = tape.value("image", 0)
    x, channels_in = given, 3
    for stage, (count, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        for i in range(count):
            x = _conv(tape, f"{stage}.{i}", x, channels_in, channels, side, batch, bn=False)
            x = tape.op(f"{stage}.{i}.relu", [x], tape.values[x].nbytes, save_output=True)
            channels_in = channels
        side //= 2
        x = tape.op(
            f"{stage}.pool", [x], batch * channels_in * side * side * FLOAT, save_inputs=True
        )
    width = channels_in * side * side
    for i, wide in enumerate((4096, 4096, 1000)):
        x = tape.op(
            f"fc{i}",
            [x],
            batch * wide * FLOAT,
            flops=2.0 * batch * width * wide,
            save_inputs=True,
            parameter_bytes=width * wide * FLOAT,
        )
        width = wide
    loss = tape.op("loss", [x], FLOAT, save_inputs=True)
    return tape.finish(loss, [given])
