"""Every method of the benchmark: what a user would pick, fxremat among them."""

from __future__ import annotations

from benchmarks.methods import checkpoint, fxremat, plain, rockmate, torch_budget
from benchmarks.methods.base import Method, Prepared, Task, Unavailable

METHODS: dict[str, Method] = {
    method.name: method
    for module in (plain, checkpoint, torch_budget, rockmate, fxremat)
    for method in module.METHODS
}


def get(name: str) -> Method:
    """The method of that name."""
    if name not in METHODS:
        raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Method", "Prepared", "Task", "Unavailable", "get"]
