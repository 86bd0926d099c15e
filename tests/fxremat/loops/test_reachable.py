"""What is found from a step without running it."""

from __future__ import annotations

import functools

import torch
from torch import nn

from fxremat.loops.reachable import reachable

GLOBAL = torch.ones(1)


def through_global(y: torch.Tensor, _: int) -> torch.Tensor:
    return y * GLOBAL


def through_another_function(y: torch.Tensor, i: int) -> torch.Tensor:
    return sum([through_global(y, i) for _ in range(2)], y)


def ids(step: object) -> set[int]:
    return {id(t) for t in reachable(step).tensors}  # pyright: ignore


def test_places() -> None:
    inside, default, own = torch.ones(2), torch.ones(3), torch.Generator()

    class Model:
        def __init__(self) -> None:
            self.parts = {"a": [(inside, own)]}

        def __call__(self, y: torch.Tensor, _: int, more: torch.Tensor = default) -> torch.Tensor:
            return y * more * GLOBAL

    model = Model()
    assert ids(model) == {id(inside), id(default), id(GLOBAL)}
    assert ids(functools.partial(model.__call__)) >= {id(inside), id(default)}
    assert ids(lambda y, i: model(y, i)) == ids(model)
    assert reachable(model).generators == (own,)
    assert ids(through_another_function) == {id(GLOBAL)}


def test_modules() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    expected = {id(t) for t in (*module.parameters(), *module.buffers())}
    assert ids(module) == expected
    assert ids(lambda y, _: module(y)) == expected


def test_data_is_not_searched() -> None:
    data = [torch.ones(1)] * 10_001
    assert ids(lambda y, i: y * data[i]) == set()


def test_circles_and_unbound_names() -> None:
    circle: list[object] = [GLOBAL]
    circle.append(circle)

    def step(y: torch.Tensor, i: int) -> torch.Tensor:
        return later(y, circle) if i else y

    found = ids(step)

    def later(y: torch.Tensor, _: object) -> torch.Tensor:
        return y

    assert found == {id(GLOBAL)}
