"""Which tensors that require gradients a step uses without having been given them.

The graph of a step ends in leaves and in nodes that are older than the step. Leaves are found from
the graph itself; of an older node the tensor must be found in what the step can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from fxremat import torch_hooks
from fxremat.errors import LoopError
from fxremat.loops.reachable import reachable

Edge = tuple[Any, int]


class Captured:
    """The captured tensors that are known, in the order of their discovery. It only grows."""

    def __init__(self, step: Callable[..., Any], known: Iterable[torch.Tensor]) -> None:
        self.tensors: list[torch.Tensor] = []
        self._step = step
        self._places: dict[int, int] = {}
        self._edges: dict[Edge, int] = {}
        self._used: set[int] = set()
        for tensor in known:
            if tensor.requires_grad:
                self._add(tensor)

    def __contains__(self, tensor: object) -> bool:
        return id(tensor) in self._places

    def foresee(self, tensors: Iterable[torch.Tensor]) -> None:
        """Add leaves that no step has used so far, as a later one may.

        Not those with hooks, which autograd would call with None where no step does.
        """
        for tensor in tensors:
            wanted = tensor.is_leaf and tensor.requires_grad
            if wanted and not torch_hooks.has_gradient_hooks(tensor):
                self._add(tensor)

    def find(
        self, results: Sequence[torch.Tensor], given: Sequence[torch.Tensor], since: int
    ) -> list[int]:
        """The places of what a step's results depend on beyond the leaves that it was given.

        What isn't known yet is added. `since` is the number of the step's first node of autograd.
        """
        own = {id(t) for t in given} - self._places.keys()
        used: set[int] = set()
        edges: set[Edge] = set()
        nodes: set[Any] = set()
        stack: list[Any] = []

        def follow(node: Any, index: int) -> None:
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                if id(leaf) not in own:
                    used.add(self._add(leaf))
            elif (node, index) in self._edges:
                used.add(self._edges[node, index])
            elif torch_hooks.node_number(node) < since:
                edges.add((node, index))
            elif node not in nodes:
                nodes.add(node)
                stack.append(node)

        for result in results:
            if result.grad_fn is not None:
                follow(result.grad_fn, result.output_nr)
            elif result.requires_grad and id(result) not in own:
                used.add(self._add(result))
        while stack:
            for node, index in stack.pop().next_functions:
                if node is not None:
                    follow(node, index)
        if edges:
            used.update(self._add(tensor) for tensor in self._tensors_of(edges))
        if not used <= self._used:
            self._used |= used
            self.check_apart(self._used)
        return sorted(used)

    def check_apart(self, places: Iterable[int]) -> None:
        """Raise where one of these tensors was computed from another one.

        The engine would go on from the one to the other at each step, and once more after them.
        """
        chosen = [self.tensors[place] for place in places]
        leaves = {id(t): t for t in chosen if t.grad_fn is None}
        nodes = {t.grad_fn: t for t in chosen if t.grad_fn is not None}
        seen: set[Any] = set()
        stack = list(nodes.items())
        while stack:
            node, tensor = stack.pop()
            for before, _ in node.next_functions:
                if before is None or before in seen:
                    continue
                seen.add(before)
                other = nodes.get(before, leaves.get(id(getattr(before, "variable", None))))
                if other is not None:
                    raise LoopError(
                        f"the step uses a tensor of shape {list(tensor.shape)} that was computed "
                        f"before the loop, and one of shape {list(other.shape)} that it was "
                        "computed from: make the first one a part of the state, which the step "
                        "returns as it came"
                    )
                stack.append((before, tensor))

    def _add(self, tensor: torch.Tensor) -> int:
        """The tensor's place; the next one where it is new."""
        place = self._places.get(id(tensor))
        if place is not None:
            return place
        if tensor.retains_grad and not tensor.is_leaf:
            raise LoopError(
                f"the step uses a tensor of shape {list(tensor.shape)} that was told to retain its "
                "gradient, which would be set once a step: give the loop a view of it "
                "(t.view_as(t)) instead"
            )
        place = self._places[id(tensor)] = len(self.tensors)
        self.tensors.append(tensor)
        if tensor.grad_fn is not None:
            self._edges[tensor.grad_fn, tensor.output_nr] = place
        return place

    def _tensors_of(self, edges: set[Edge]) -> list[torch.Tensor]:
        found = [t for t in reachable(self._step).tensors if (t.grad_fn, t.output_nr) in edges]
        missing = edges - {(t.grad_fn, t.output_nr) for t in found}
        if missing:
            names = ", ".join(sorted({node.name() for node, _ in missing}))
            raise LoopError(
                f"the step uses a tensor that was computed before the loop (by {names}) and that "
                "can't be found from it: name it in params=[...], or put it into the state"
            )
        return found
