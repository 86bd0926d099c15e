"""Parts of buffers, held against the elements that they have."""

from __future__ import annotations

import itertools

import torch

from fxremat.inductor.parts import Part, are_apart, part_of


def elements(part: Part) -> set[int]:
    whole = torch.arange(4096)
    return set(whole.as_strided(part.size, part.stride, part.offset).flatten().tolist())


def test_slices_of_one_tensor() -> None:
    """What is said to be apart shares nothing; slices along one dimension are seen to be apart."""
    whole = torch.empty(3, 8, 4, 5)
    slices = [
        Part(tuple(view.shape), view.stride(), view.storage_offset())
        for dim in range(4)
        for begin, end in ((0, 2), (1, 3), (2, 3))
        for view in (whole.narrow(dim, begin, end - begin),)
    ]
    found = 0
    for one, other in itertools.product(slices, slices):
        if are_apart(one, other):
            assert not elements(one) & elements(other)
            found += 1
    assert found == 4 * 2  # in each dimension 0:2 and 2:3, both ways


def test_what_is_not_known_may_overlap() -> None:
    part = Part((2, 2), (4, 1), 0)
    assert not are_apart(part, None)
    assert not are_apart(part, Part((2, 2), (2, 1), 2))  # other strides
    assert not are_apart(part, Part((2, 2), (4, 1), 3))  # it reaches into the next row
    assert not are_apart(Part((3, 2), (1, 1), 0), Part((3, 2), (1, 1), 8))  # rows overlap


def test_names_of_parts() -> None:
    text = "buf5 = reinterpret_tensor(buf10, (8, 4), (32, 1), 16)  # alias"
    assert part_of(text) == Part((8, 4), (32, 1), 16)
    assert part_of("buf5 = reinterpret_tensor(buf10, (s0, 4), (32, 1), 16)") is None
    assert part_of("buf5 = buf10") is None
    inner = Part((2,), (1,), 3)
    assert inner.inside(Part((8, 4), (32, 1), 16)) == Part((2,), (1,), 19)
    assert inner.inside(None) == inner
