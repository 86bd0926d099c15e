"""The first state, as AOTAutograd hands it over: what it calls for the two halves of a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import fx

from fxremat import torch_hooks
from fxremat.capture.read import graphs_inside
from fxremat.nodes import MADE_BY_CALL
from fxremat.pipeline.states import Traced
from fxremat.torch_hooks import Partitioner


def partitioner(
    module: fx.GraphModule,
    halves: Callable[[Traced], tuple[fx.GraphModule, fx.GraphModule]],
    *,
    is_part: bool = False,
) -> Partitioner:
    """What calls `halves` with the joint graph that AOTAutograd traces of Dynamo's `module`.

    Raises `UnsupportedGraphError` where AOTAutograd splits regions of it one by one.
    """

    def partition(
        joint: fx.GraphModule,
        _inputs: object,
        *,
        num_fwd_outputs: int,
        static_lifetime_input_indices: Sequence[int] | None = None,
        **_unused: object,
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        if torch_hooks.has_compiled_regions(module):
            raise graphs_inside("nested_compile_region")
        for node in torch_hooks.made_by_call(joint, module):
            node.meta[MADE_BY_CALL] = True
        static = tuple(static_lifetime_input_indices or ())
        return halves(Traced(joint, num_fwd_outputs, static, is_part))

    return partition
