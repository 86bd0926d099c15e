"""One budget is for one whole step: refuse graphs that are only a part of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import fx

from fxremat import torch_hooks
from fxremat.capture.read import graphs_inside
from fxremat.errors import GraphBreakError


@dataclass
class WholeStep:
    """Whether the graphs that a backend is given are each a whole step.

    `fullgraph` says that Dynamo was told to compile the whole function or fail; then they are.
    `frame` is Dynamo's number of the one function that was compiled so far.
    """

    fullgraph: bool
    frame: int | None = None

    def check(self, module: fx.GraphModule) -> None:
        """Raise `GraphBreakError` for a piece, `UnsupportedGraphError` for one that has pieces."""
        if torch_hooks.has_compiled_regions(module):
            raise graphs_inside("nested_compile_region")
        reason = torch_hooks.graph_break_of(module)
        if reason is not None:
            raise GraphBreakError(
                f"the model breaks into several graphs: {reason}. One budget can't be kept over "
                "graphs that are compiled one by one. Give torch.compile fullgraph=True, which "
                "traces sizes and numbers that depend on the data; else remove what breaks the "
                "graph (torch._dynamo.explain(model)(*inputs) lists every place), or optimize only "
                "the function without it"
            )
        compiling = torch_hooks.compiled_frame_id()
        if self.fullgraph or compiling is None:
            return
        frame, _ = compiling
        around = torch_hooks.running_inside()
        if around is not None or self.frame not in (None, frame):
            raise GraphBreakError(
                "the model was split into several functions that are compiled one by one"
                f"{f' inside {around}' if around else ''} (a graph break in a loop or a disabled "
                "function does this): one budget can't be kept over them. "
                "torch._dynamo.explain(model)(*inputs) names the place; remove it, or optimize "
                "only the function without it"
            )
        self.frame = frame

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
