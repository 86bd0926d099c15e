"""The name that `torch.compile(model, backend="fxremat")` finds, by the package's entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from fxremat import torch_hooks
from fxremat.errors import OptionError
from fxremat.frontend.backend import Backend
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.frontend.step_budget import StepBudget
from fxremat.plan.options import make_options


class EntryPoint:
    """The backend named "fxremat": one `Backend` for each `torch.compile` call.

    Dynamo calls a named backend anew for every graph, out of an object that `torch.compile` made
    for the call. One Backend must see all graphs of a call, to refuse a second piece of a broken
    model; the object is kept, so that its identity stays its own. Where torch has no such object,
    the call's options dict stands for it. Dynamo itself keeps every backend until it is reset;
    plans are not kept by them, but by what was compiled.

    Log calls in a model would break its graph. `torch.compile` gives a backend no moment before
    it traces but the one when it looks the backend up; then they are taken out of the way.
    """

    __name__ = "fxremat"

    def __init__(self) -> None:
        self._backends: dict[int, tuple[object, Backend]] = {}

    def __call__(
        self,
        module: fx.GraphModule,
        example_inputs: Sequence[Any],
        *,
        options: Mapping[str, Any] | None = None,
        mode: str | None = None,
    ) -> Callable[..., Any]:
        if mode is not None:
            raise OptionError(f"mode={mode!r} means nothing to the fxremat backend: leave it out")
        given: Mapping[str, Any] = options if options is not None else {}
        call = torch_hooks.compile_call() or given
        shared = given.get("budget")
        if isinstance(shared, StepBudget):
            asked = make_options({**given, "budget": shared.budget})
            return shared.backend(asked)(module, example_inputs)
        found = self._backends.get(id(call))
        if found is None:
            found = (call, Backend.of(make_options(given), WholeStep(fullgraph=False)))
            self._backends[id(call)] = found
        return found[1](module, example_inputs)

    def reset(self) -> None:
        """Forget all calls; `torch._dynamo.reset()` calls this."""
        self._backends.clear()


torch_hooks.ignore_log_calls()
fxremat = EntryPoint()
