"""A step traced on fake tensors: its joint graph, for a device that needn't be there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.errors import GraphBreakError, OptionError, UnsupportedGraphError
from fxremat.pipeline.partitioner import partitioner
from fxremat.pipeline.states import Traced


class _HasTrace(Exception):
    """Leaves AOTAutograd once the joint graph is there: nothing is compiled."""


def trace_step(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rewrite: Callable[[fx.GraphModule], None],
) -> Traced:
    """The joint graph of `function`; `rewrite` may change Dynamo's graph before it is traced.

    Raises `GraphBreakError` where it isn't one graph, `UnsupportedGraphError` where torch can't
    trace it, `OptionError` where nothing is differentiated.
    """
    found: list[Traced] = []

    def take(module: fx.GraphModule, inputs: Sequence[Any]) -> None:
        if not torch_hooks.needs_gradients(inputs):
            return
        torch_hooks.specialize_sizes(module, inputs, numbers=True)
        rewrite(module)

        def halves(traced: Traced) -> NoReturn:
            found.append(traced)
            raise _HasTrace

        partition = partitioner(module, halves)
        make = torch_hooks.make_aot_backend(partition, torch_hooks.boxed_executor)
        with contextlib.suppress(_HasTrace):
            make(module, inputs)

    try:
        with torch.inference_mode(False), torch.enable_grad():
            torch_hooks.trace_whole(function, args, kwargs, take)
    except torch_hooks.PassesThroughDynamo as error:
        raise error.remove_dynamo_frames() from None
    except Exception as error:
        _raise_readable(error)
    if not found:
        raise OptionError(
            "the model has nothing to differentiate: it traces no training graph (do its "
            "parameters require gradients, and does it return what depends on them?)"
        )
    return found[0]


def _raise_readable(error: Exception) -> NoReturn:
    """Raise in our words what torch says of a model that can't be traced."""
    reason = torch_hooks.unwrap_graph_break(error)
    if reason is not None:
        raise GraphBreakError(
            "the model does not trace into one graph, which an estimate needs. Remove what breaks "
            f"the graph, or estimate its parts:\n{reason}"
        ) from torch_hooks.shown_cause(error)
    inside = torch_hooks.torch_failure(error)
    if inside is not None:
        raise UnsupportedGraphError(
            "torch itself fails when it traces the model, before there is a graph to estimate. "
            f"Rewrite the line, or leave it out:\n{inside}"
        ) from torch_hooks.shown_cause(error)
    if torch_hooks.shorten(error):
        raise error from None
    raise error
