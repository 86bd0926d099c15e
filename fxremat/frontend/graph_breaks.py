"""Tell graphs that are a whole step from those that are a part of one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import fx

from fxremat import torch_hooks


@dataclass
class WholeStep:
    """Whether the graphs that a backend is given are each a whole step.

    `fullgraph` says that Dynamo was told to compile the whole function or fail; then they are.
    `frame` is Dynamo's number of the one function that was compiled so far.
    """

    fullgraph: bool
    frame: int | None = None

    def why_a_part(self, module: fx.GraphModule) -> str:
        """Why a graph is only a part of its step; empty where nothing says that it is."""
        reason = torch_hooks.graph_break_of(module)
        if reason is not None:
            return reason
        compiling = torch_hooks.compiled_frame_id()
        if self.fullgraph or compiling is None:
            return ""
        frame, _ = compiling
        around = torch_hooks.running_inside()
        if around is not None:
            return f"compiled by itself inside {around}, which runs as it is"
        if self.frame not in (None, frame):
            return "one of several functions that are compiled one by one"
        self.frame = frame
        return ""

    def warn_of_the_last_shape(self) -> None:
        """Say when Dynamo will compile no further graph for the function that it compiles now."""
        compiling = torch_hooks.compiled_frame_id()
        if self.fullgraph or compiling is None:
            return
        if torch_hooks.recompilations_left(compiling[1]) <= 1:
            warnings.warn(
                "this is the last input shape that torch compiles for this model; for further "
                "shapes it would run without any plan or budget. Raise "
                "torch._dynamo.config.recompile_limit, or pad inputs to fewer shapes",
                stacklevel=2,
            )
