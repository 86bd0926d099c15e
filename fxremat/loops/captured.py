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
    """The captured tensors that are known, in the order of their discovery, and their ids.

    It only grows.
    """

    def __init__(self, step: Callable[..., Any], known: Iterable[torch.Tensor]) -> None:
        self.tensors: list[torch.Tensor] = []
        self._step = step
        self.ids: set[int] = set()
        self._edges: set[Edge] = set()
        for tensor in known:
            if tensor.requires_grad:
                self._add(tensor)

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
    ) -> list[torch.Tensor]:
        """What a step's results depend on beyond the leaves that it was given; adds it.

        `since` is the number that autograd gave to the step's first node.
        """
        new: list[torch.Tensor] = []
        own = {id(t) for t in given}
        edges: set[Edge] = set()
        nodes: set[Any] = set()
        stack: list[Any] = []

        def follow(node: Any, index: int) -> None:
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                if id(leaf) not in own and id(leaf) not in self.ids:
                    self._add(leaf)
                    new.append(leaf)
            elif (node, index) in self._edges:
                return
            elif torch_hooks.node_number(node) < since:
                edges.add((node, index))
            elif node not in nodes:
                nodes.add(node)
                stack.append(node)

        for result in results:
            if result.grad_fn is not None:
                follow(result.grad_fn, result.output_nr)
            elif result.requires_grad and id(result) not in own and id(result) not in self.ids:
                self._add(result)
                new.append(result)
        while stack:
            for node, index in stack.pop().next_functions:
                if node is not None:
                    follow(node, index)
        if edges:
            new += self._tensors_of(edges)
        return new

    def _add(self, tensor: torch.Tensor) -> None:
        if id(tensor) in self.ids:
            return
        if tensor.retains_grad and not tensor.is_leaf:
            raise LoopError(
                f"the step uses a tensor of shape {list(tensor.shape)} that was told to retain its "
                "gradient, which would be set once a step: give the loop a view of it "
                "(t.view_as(t)) instead"
            )
        self.tensors.append(tensor)
        self.ids.add(id(tensor))
        if tensor.grad_fn is not None:
            self._edges.add((tensor.grad_fn, tensor.output_nr))

    def _tensors_of(self, edges: set[Edge]) -> list[torch.Tensor]:
        found = [t for t in reachable(self._step).tensors if (t.grad_fn, t.output_nr) in edges]
        missing = edges - {(t.grad_fn, t.output_nr) for t in found}
        if missing:
            names = ", ".join(sorted({node.name() for node, _ in missing}))
            raise LoopError(
                f"the step uses a tensor that was computed before the loop (by {names}) and that "
                "can't be found from it: name it in params=[...], or put it into the state"
            )
        for tensor in found:
            self._add(tensor)
        return found
