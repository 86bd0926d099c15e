"""`optimize` returns a drop-in: the same class, parameters, keys and hooks, the original intact."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import pickle
import pickletools
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.utils import parametrize

import fxremat
from fxremat import OptionError
from fxremat.frontend.compiled import compiled_of


class Model(nn.Module):
    """A docstring to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.second = nn.Linear(8, 8)
        self.scale = 2.0

    def forward(self, x: torch.Tensor, *, shift: float = 0.0) -> torch.Tensor:
        return self.second(torch.relu(self.norm(self.first(x)))) * self.scale + shift


X = torch.randn(16, 8)


@pytest.fixture(autouse=True)
def _nothing_counted() -> None:
    counters.clear()


def optimized(model: nn.Module | None = None, **options: Any) -> Any:
    return fxremat.optimize(model or Model(), budget=1.0, **options)


def test_it_is_the_same_module_but_for_forward() -> None:
    model = Model()
    drop_in = optimized(model)
    assert isinstance(drop_in, Model)
    assert type(drop_in).__name__ == "Model"
    assert type(model) is Model
    assert list(drop_in.state_dict()) == list(model.state_dict())
    assert all(a is b for a, b in zip(drop_in.parameters(), model.parameters(), strict=True))
    assert drop_in.first is model.first
    assert drop_in.__doc__ == model.__doc__
    assert inspect.signature(drop_in.forward) == inspect.signature(model.forward)
    assert repr(drop_in) == repr(model)
    assert not any("fxremat" in key for key in vars(model))


def test_train_eval_and_to_reach_both() -> None:
    model = Model()
    drop_in = optimized(model)
    drop_in.eval()
    assert not model.training
    assert not model.norm.training
    model.train()
    assert drop_in.training
    drop_in.to(torch.float64)
    assert model.first.weight.dtype is torch.float64
    drop_in(X.double()).sum().backward()
    assert model.first.weight.grad is not None


def test_hooks_run() -> None:
    model = Model()
    drop_in = optimized(model)
    seen: list[str] = []
    drop_in.register_forward_pre_hook(lambda *_: seen.append("pre"))
    drop_in.register_forward_hook(lambda *_: seen.append("post"))
    drop_in(X)
    assert seen == ["pre", "post"]


def step(module: nn.Module) -> list[torch.Tensor]:
    """The gradients of one step, the input's last."""
    module.zero_grad()
    x = X.clone().requires_grad_()
    module(x).square().mean().backward()
    assert x.grad is not None
    return [*(p.grad for p in module.parameters() if p.grad is not None), x.grad]


def assert_steps_are_the_same(drop_in: nn.Module, twin: nn.Module) -> None:
    assert all(torch.equal(a, b) for a, b in zip(step(drop_in), step(twin), strict=True))


def test_backward_hooks_see_and_change_gradients() -> None:
    twin = Model()
    drop_in = optimized(copy.deepcopy(twin))
    seen: list[torch.Tensor] = []
    for module in (drop_in, twin):
        module.register_full_backward_pre_hook(lambda _, grads: (grads[0] * 2,))
        module.register_full_backward_hook(lambda _, grads, __: (grads[0] * 3,))
        module.register_full_backward_hook(lambda *given: seen.append(given[2][0]))
        module.first.weight.register_hook(lambda grad: grad * 5)
    assert_steps_are_the_same(drop_in, twin)
    assert torch.equal(*seen)


def test_hooks_of_parts_may_come_and_go_between_steps() -> None:
    twin = Model()
    drop_in = optimized(copy.deepcopy(twin))
    assert_steps_are_the_same(drop_in, twin)
    hooks = [m.first.register_forward_hook(lambda *given: given[2] * 2) for m in (drop_in, twin)]
    assert_steps_are_the_same(drop_in, twin)
    for hook in hooks:
        hook.remove()
    assert_steps_are_the_same(drop_in, twin)
    assert len(compiled_of(drop_in).backend.history.graphs) == 2


class Symmetric(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.triu() + weight.triu(1).T


def test_parametrizations_of_parts_may_come_and_go() -> None:
    twin = Model()
    drop_in = optimized(copy.deepcopy(twin))
    assert_steps_are_the_same(drop_in, twin)
    for module in (drop_in, twin):
        parametrize.register_parametrization(module.first, "weight", Symmetric())
    assert_steps_are_the_same(drop_in, twin)
    for module in (drop_in, twin):
        parametrize.remove_parametrizations(module.first, "weight")
    assert_steps_are_the_same(drop_in, twin)


def test_compile_is_refused_as_no_plan_would_run() -> None:
    with pytest.raises(OptionError, match="compiled under its budget already"):
        optimized().compile()
    model = Model()
    model.compile()
    with pytest.raises(OptionError, match="leave it out"):
        optimized(model)


def test_state_dict_round_trip() -> None:
    model, other = Model(), Model()
    drop_in = optimized(model)
    drop_in.load_state_dict(other.state_dict())
    assert torch.equal(model.first.weight, other.first.weight)


def test_pickles_name_public_places_alone() -> None:
    """A model that was pickled is read by later versions, wherever their files lie."""
    drop_in = fxremat.optimize(nn.Linear(4, 4), budget="1MiB")
    named = {name for name in pickletools_strings(drop_in) if name.startswith("fxremat")}
    assert named == {"fxremat"}


def pickletools_strings(value: object) -> set[str]:
    operations = pickletools.genops(pickle.dumps(value))
    return {argument for _, argument, _ in operations if isinstance(argument, str)}


def test_copies_and_pickles_are_optimized_too() -> None:
    drop_in = optimized()
    saved = io.BytesIO()
    torch.save(drop_in, saved)
    saved.seek(0)
    for copied in (
        copy.deepcopy(drop_in),
        pickle.loads(pickle.dumps(drop_in)),
        torch.load(saved, weights_only=False),
    ):
        assert isinstance(copied, Model)
        assert copied.first.weight is not drop_in.first.weight
        assert torch.equal(copied.first.weight, drop_in.first.weight)
        copied(X).sum().backward()
        assert fxremat.explain(copied).budget_bytes > 0


def test_optimizing_an_optimized_model_starts_from_the_original() -> None:
    model = Model()
    again = optimized(optimized(model))
    again(X).sum().backward()
    assert fxremat.explain(again).planned_peak_bytes > 0


def test_a_forward_set_on_the_model_is_planned() -> None:
    model = Model()
    plain = model.forward
    model.forward = lambda x: plain(x) * 3  # type: ignore[method-assign]
    drop_in = optimized(model)
    drop_in(X).sum().backward()
    assert len(compiled_of(drop_in).backend.history.graphs) == 1
    assert torch.equal(drop_in(X), model(X))
    again = fxremat.optimize(drop_in, budget=1.0)
    again(X).sum().backward()
    assert len(compiled_of(again).backend.history.graphs) == 1


def test_keyword_arguments_and_python_constants() -> None:
    model = Model().eval()
    twin = copy.deepcopy(model)
    drop_in = optimized(model)
    assert torch.equal(drop_in(X, shift=1.0), twin(X, shift=1.0))
    model.scale = twin.scale = 3.0
    assert torch.equal(drop_in(X), twin(X))


def test_many_optimized_copies_do_not_use_up_each_others_recompilations() -> None:
    for _ in range(10):
        drop_in = optimized()
        drop_in(X).sum().backward()
        assert fxremat.explain(drop_in).planned_peak_bytes > 0


@pytest.mark.parametrize("example_inputs", [X, (X,), {"x": X}])
def test_example_inputs_compile_at_once(example_inputs: Any) -> None:
    drop_in = optimized(example_inputs=example_inputs)
    assert fxremat.explain(drop_in).input_shapes


def test_without_gradients_the_original_runs() -> None:
    drop_in = optimized()
    drop_in.eval()
    frozen = Model().requires_grad_(False)
    with torch.no_grad():
        drop_in(X)
    with torch.inference_mode():
        drop_in(X)
    optimized(frozen)(X)
    assert not counters["stats"], "Dynamo compiled something"
    assert not compiled_of(drop_in).backend.history.graphs


def test_gradients_of_an_input_are_planned() -> None:
    drop_in = optimized(Model().eval().requires_grad_(False))
    x = X.clone().requires_grad_()
    drop_in(x).sum().backward()
    assert x.grad is not None
    assert len(compiled_of(drop_in).backend.history.graphs) == 1


def test_under_torch_compile_only_training_is_planned() -> None:
    model = Model()
    compiled = torch.compile(model, backend="fxremat", options={"budget": 1.0})
    with torch.no_grad():
        for rows in range(2, 8):
            x = torch.randn(rows, 8)
            assert torch.equal(compiled(x), model(x))
    assert counters["stats"]["unique_graphs"] <= 2, "a graph a shape"


def test_the_forward_of_the_class_can_be_inspected() -> None:
    signature = inspect.signature(Model.forward)
    assert inspect.signature(type(optimized()).forward) == signature
    assert not hasattr(type(optimized()).forward, "__wrapped__")


def test_what_was_planned_goes_with_the_module() -> None:
    def plan() -> weakref.ref[Any]:
        drop_in = optimized()
        drop_in(X).sum().backward()
        return weakref.ref(compiled_of(drop_in).backend.history.graphs[0].plan)

    plans = [plan() for _ in range(2)]
    gc.collect()
    assert [found() for found in plans] == [None, None]
