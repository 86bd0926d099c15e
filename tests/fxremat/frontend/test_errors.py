"""Bad input: each has its typed error, unwrapped, with the way out in its message."""

from __future__ import annotations

import logging
import os
import pickle
import traceback
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import fxremat
from fxremat import (
    BudgetError,
    BudgetInfeasible,
    DeviceError,
    DoubleBackwardError,
    GraphBreakError,
    OptionError,
    UnsupportedGraphError,
)
from fxremat.frontend.compiled import compiled_of


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.nn.functional.gelu(layer(x))
        return x.square().mean()


X = torch.randn(64, 16)
LOGGER = logging.getLogger("a model")


def compiled(model: nn.Module, **options: Any) -> Any:
    return torch.compile(model, backend="fxremat", options=options)


def test_registered() -> None:
    assert "fxremat" in torch._dynamo.list_backends()


@pytest.mark.parametrize("budget", [0, -3, 2, True, 1.2, float("nan"), "6 furlongs"])
def test_bad_budgets(budget: Any) -> None:
    with pytest.raises(BudgetError):
        fxremat.optimize(Small(), budget=budget)
    with pytest.raises(BudgetError):
        compiled(Small(), budget=budget)(X)


def test_infeasible_budget_before_the_first_step() -> None:
    with pytest.raises(BudgetInfeasible) as caught:
        fxremat.optimize(Small(), budget="1KiB", example_inputs=(X,))
    error = caught.value
    assert error.budget_bytes == 1024
    assert error.floor_bytes > 1024
    assert error.holders
    assert str(error.floor_bytes) in str(error)
    assert "test_errors.py" in str(error), "the message names lines of the model"
    model = fxremat.optimize(Small(), budget=error.floor_bytes, example_inputs=(X,))
    assert fxremat.explain(model).planned_peak_bytes <= error.floor_bytes


def test_infeasible_budget_under_torch_compile() -> None:
    with pytest.raises(BudgetInfeasible):
        compiled(Small(), budget="100B")(X)


def test_a_failed_compilation_leaves_the_model_as_it_was() -> None:
    model = Small()
    with pytest.raises(BudgetInfeasible):
        fxremat.optimize(model, budget="100B", example_inputs=(X,))
    model(X).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "simplex"},
        {"cost": "guess"},
        {"time_limit_s": 0},
        {"time_limit_s": "soon"},
        {"seed": 1.5},
        {"preset": "slow"},
        {"effort": 1},
        {"threads": 0},
        {"threads": True},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        fxremat.optimize(Small(), budget=0.5, **options)
    with pytest.raises(OptionError):
        compiled(Small(), budget=0.5, **options)(X)


def test_unknown_option_is_named_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"'budgets'.*budget, cost"):
        compiled(Small(), budget=0.5, budgets=3)(X)


def test_a_solver_that_is_too_small_for_the_model() -> None:
    with pytest.raises(OptionError, match="exact search takes at most"):
        fxremat.optimize(Small(), budget=0.7, solver="exact", example_inputs=X)


def test_two_models_may_share_their_options() -> None:
    options = {"budget": 1.0}
    for width in (8, 16):
        module = nn.Linear(width, width)

        def loss(x: torch.Tensor, module: nn.Module = module) -> torch.Tensor:
            return module(x).square().sum()

        torch.compile(loss, backend="fxremat", options=options)(torch.randn(4, width)).backward()


def test_missing_budget() -> None:
    with pytest.raises(OptionError, match="budget"):
        torch.compile(Small(), backend="fxremat")(X)


def test_not_a_model() -> None:
    with pytest.raises(OptionError):
        fxremat.optimize(3, budget=0.5)  # type: ignore[type-var]
    with pytest.raises(OptionError, match="class"):
        fxremat.optimize(Small, budget=0.5)
    with pytest.raises(OptionError, match="example_inputs"):
        fxremat.optimize(Small(), budget=0.5, example_inputs=3)


def test_a_wrapper_is_put_around_last() -> None:
    with pytest.raises(OptionError, match=r"DataParallel\(fxremat\.optimize"):
        fxremat.optimize(nn.DataParallel(Small()), budget=0.5)


def test_explain_before_anything_is_compiled() -> None:
    with pytest.raises(OptionError, match="nothing is planned"):
        fxremat.explain(fxremat.optimize(Small(), budget=0.5))
    with pytest.raises(OptionError):
        fxremat.explain(Small())


@pytest.mark.parametrize("create_graph_by", ["backward", "grad"])
def test_double_backward(create_graph_by: str) -> None:
    model = fxremat.optimize(Small(), budget=1.0)
    loss = model(X)
    differentiate = {
        "backward": lambda: loss.backward(create_graph=True),
        "grad": lambda: torch.autograd.grad(loss, [*model.parameters()], create_graph=True),
    }
    with pytest.raises(DoubleBackwardError, match="create_graph"):
        differentiate[create_graph_by]()


class Broken(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers[0](x)
        torch._dynamo.graph_break()
        return self.layers[1](x).square().mean()


class Layer(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)


class BrokenInALoop(Small):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(16, 16) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
            torch._dynamo.graph_break()
        return x.square().mean()


@pytest.mark.parametrize("model", [Broken, BrokenInALoop])
def test_graph_breaks(model: type[nn.Module]) -> None:
    """An error where one graph is asked for; else the graphs are planned together."""
    with pytest.raises(GraphBreakError, match=r"test_errors\.py"):
        fxremat.optimize(model(), budget=0.9, fullgraph=True)(X)
    with pytest.raises(GraphBreakError, match=r"test_errors\.py"):
        fxremat.optimize(model(), budget=0.9, example_inputs=(X,))
    assert trains_in_parts(fxremat.optimize(model(), budget=1.0))


def trains_in_parts(function: Any) -> bool:
    """Whether three steps run, the last by a plan for several graphs."""
    for _ in range(3):
        function(X).backward()
    tracker = compiled_of(function).backend.tracker
    assert tracker is not None
    plan = tracker.kinds[0].plan
    return plan is not None and len(plan.plans) > 1


def test_split_by_a_disabled_function() -> None:
    class Split(Small):
        @torch._dynamo.disable
        def middle(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers[1](self.middle(self.layers[0](x))).square().mean()

    with pytest.raises(GraphBreakError):
        fxremat.optimize(Split(), budget=0.9, fullgraph=True)(X)
    assert trains_in_parts(fxremat.optimize(Split(), budget=1.0))


def test_a_model_without_memory() -> None:
    with torch.device("meta"):
        model = Small()
    for x in (X, X.to("meta")):
        with pytest.raises(DeviceError, match="to_empty"):
            fxremat.optimize(model, budget=1.0)(x)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_model_where_there_is_none() -> None:
    class OnCuda(Small):
        def parameters(self, recurse: bool = True) -> Any:
            del recurse
            return iter([SimpleNamespace(device=torch.device("cuda", 0))])

    with pytest.raises(DeviceError, match="none is available"):
        fxremat.optimize(OnCuda(), budget=0.5)


def begins_at_data(x: torch.Tensor) -> torch.Tensor:
    return x.sin().narrow(0, (x[:, 0] > 0).sum(), 1).mean()


def sums_up_what_is_picked(x: torch.Tensor) -> torch.Tensor:
    return x.sin()[x > 0].cumsum(0).mean()


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("function", [begins_at_data, sums_up_what_is_picked])
def test_what_torch_fails_to_trace(
    function: Callable[[torch.Tensor], torch.Tensor], ahead: bool
) -> None:
    x = X.clone().requires_grad_()
    with pytest.raises(UnsupportedGraphError, match=r"torch itself fails.*\n.*u0"):
        fxremat.optimize(function, budget=1.0, example_inputs=x if ahead else None)(x)


def test_a_loop_over_the_data() -> None:
    layer = nn.Linear(16, 16)

    def loop(x: torch.Tensor) -> torch.Tensor:
        for i in torch.nonzero(x[:, 0] > 0):
            x = x + layer(x[i])
        return x.mean()

    with pytest.raises(GraphBreakError):
        fxremat.optimize(loop, budget=1.0, fullgraph=True)(X)


class WrongSizes(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x) @ x


class Raises(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"of the model's own: {x.dim()}")


def on_meta() -> nn.Module:
    return Small().to("meta")


def optimized(model: Any, budget: float | str = 1.0) -> Any:
    return fxremat.optimize(model, budget=budget, fullgraph=True)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: optimized(Small(), "2000B")(X), BudgetInfeasible),
        (lambda: compiled(Small(), budget="2000B")(X), BudgetInfeasible),
        (
            lambda: fxremat.optimize(Small(), budget="2000B", example_inputs=(X,)),
            BudgetInfeasible,
        ),
        (lambda: compiled(Small(), budget=1.5)(X), BudgetError),
        (lambda: optimized(Broken())(X), GraphBreakError),
        (lambda: optimized(begins_at_data)(X.clone().requires_grad_()), UnsupportedGraphError),
        (lambda: optimized(on_meta())(X), DeviceError),
        (lambda: optimized(nn.Embedding(4, 4, sparse=True))(X[0].long()), UnsupportedGraphError),
        (lambda: optimized(WrongSizes())(X), RuntimeError),
        (lambda: optimized(Raises())(X), GraphBreakError),
    ],
)
def test_what_a_user_reads_of_an_error(
    call: Callable[[], object], expected: type[Exception]
) -> None:
    """The error itself: neither Dynamo's frames nor how to report a bug to PyTorch."""
    with pytest.raises(expected) as caught:
        call()
    error = caught.value
    assert "TORCHDYNAMO" not in str(error)
    assert "PyTorch" not in str(error)
    assert "fxremat_step" not in str(error), "a frame that is no user's"
    read = traceback.format_exception(error)
    assert sum(f"{os.sep}_dynamo{os.sep}" in line for line in read) <= 5
    assert sum(line.startswith("  File") for line in read) <= 12


def test_an_error_of_the_model_says_where_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"must have same reduction dim(.|\n)*test_errors\.py"):
        optimized(WrongSizes())(X)
    with pytest.raises(GraphBreakError, match=r"of the model's own(.|\n)*test_errors\.py"):
        optimized(Raises())(X)


def test_an_error_of_the_model_is_its_own_where_graphs_may_break() -> None:
    with pytest.raises(ValueError, match="of the model's own"):
        fxremat.optimize(Raises(), budget=1.0)(X)


def test_dynamo_shows_its_frames_where_it_is_told_to() -> None:
    with torch._dynamo.config.patch(verbose=True), pytest.raises(GraphBreakError) as caught:
        optimized(Broken())(X)
    assert caught.value.__cause__ is not None


def test_an_error_goes_from_process_to_process() -> None:
    with pytest.raises(BudgetInfeasible) as caught:
        optimized(Small(), "2000B")(X)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert type(copied) is BudgetInfeasible
    assert str(copied) == str(caught.value)
    assert copied.floor_bytes == caught.value.floor_bytes


def test_log_calls_break_no_graph_through_either_door() -> None:
    class Logs(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            LOGGER.warning("said at each step")
            logging.info("said at each step")
            return super().forward(x)

    fxremat.optimize(Logs(), budget=1.0)(X).backward()
    torch.compile(Logs(), backend="fxremat", fullgraph=True, options={"budget": 1.0})(X).backward()


def test_an_optimized_model_inside_an_optimized_function_is_named() -> None:
    inner = fxremat.optimize(Small(), budget=0.9)
    with pytest.raises(GraphBreakError, match=r"a model that fxremat\.optimize"):
        fxremat.optimize(lambda x: inner(x) * 2, budget=0.9, fullgraph=True)(X)


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_optimized_model_inside_another_compiled_function_is_planned_or_heard(
    wrapped: bool,
) -> None:
    """Whether Dynamo then compiles what is called inside is up to it."""
    inner = fxremat.optimize(Small(), budget=0.9)
    if wrapped:
        plain = inner.forward
        inner.forward = lambda x: plain(x) + 1
    outer = torch.compile(lambda x: inner(x) * 2, backend="aot_eager")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        outer(X).sum().backward()
    heard = any("a torch.compile around it" in str(each.message) for each in said)
    assert heard or compiled_of(inner).backend.steps.count


@pytest.mark.parametrize("warm", [False, True])
def test_a_mode_that_sees_every_op_is_named(warm: bool) -> None:
    optimized = fxremat.optimize(Small(), budget=0.9)
    if warm:
        optimized(X).sum().backward()
    with (
        FlopCounterMode(display=False),
        pytest.raises(fxremat.DispatchModeError, match="FlopCounterMode is active"),
    ):
        optimized(X)
    optimized(X).sum().backward()


def test_scripted_modules_are_refused() -> None:
    with pytest.raises(OptionError, match="Python code is gone"):
        fxremat.optimize(torch.jit.trace(nn.Linear(4, 4), torch.ones(2, 4)), budget=0.9)


@pytest.mark.parametrize(
    "around",
    [
        torch.autograd.graph.save_on_cpu,
        lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t),
        torch.autograd.detect_anomaly,
    ],
    ids=["save_on_cpu", "saved_tensors_hooks", "detect_anomaly"],
)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_contexts_of_autograds_change_no_bit(around: Any) -> None:
    model = Small()
    optimized = fxremat.optimize(model, budget=0.8)
    with around():
        expected = torch.autograd.grad(model(X).square().sum(), tuple(model.parameters()))
        found = torch.autograd.grad(optimized(X).square().sum(), tuple(model.parameters()))
    assert all(map(torch.equal, expected, found))
