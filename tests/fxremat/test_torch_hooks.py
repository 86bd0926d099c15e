"""The private torch API that the project stands on: fails loudly when torch moves it."""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import json
import logging
import operator
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch._functorch.partitioners import (
    default_partition,
    min_cut_rematerialization_partition,
)
from torch.distributed import _composable_state

from fxremat import FxrematError, torch_hooks


def traced(function: Any, *inputs: Any) -> tuple[fx.GraphModule, int, dict[str, Any]]:
    """The joint graph of a function, the number of its forward outputs, the other arguments."""
    seen: list[Any] = []

    def partition(joint: fx.GraphModule, joint_inputs: Any, **options: Any) -> Any:
        count = options.pop("num_fwd_outputs")
        seen.append((joint, count, options))
        return default_partition(joint, joint_inputs, num_fwd_outputs=count, **options)

    backend = torch_hooks.make_aot_backend(partition, torch_hooks.boxed_executor)
    torch.compile(function, backend=backend, fullgraph=True)(*inputs)
    return seen[0]


X = torch.randn(4, 6, requires_grad=True)


def test_the_partitioner_is_called_as_we_take_it() -> None:
    joint, count, options = traced(lambda x: (F.dropout(x.sin(), 0.5), x.cos()), X)
    assert count == 2
    assert set(options) <= {"static_lifetime_input_indices", "static_lifetime_input_nodes"}
    placeholders = [n for n in joint.graph.nodes if n.op == "placeholder"]
    assert [torch_hooks.is_primal(n) for n in placeholders] == [True, False, False]
    assert [torch_hooks.is_tangent(n) for n in placeholders] == [False, True, True]
    forward, backward, _, _ = torch_hooks.joint_outputs(joint, count)
    assert len(forward) == 2
    assert len(backward) == 1


class Turned(torch.autograd.Function):
    """Its gradient is a product of matrices, which autocast would have in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(turn)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient @ ctx.saved_tensors[0], None


def test_a_backward_is_traced_outside_of_autocast() -> None:
    assert not torch_hooks.autocast_is_on()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch_hooks.autocast_is_on()
        joint, _, _ = traced(lambda x, turn: Turned.apply(x, turn), X, torch.eye(6))
    (product,) = joint.graph.find_nodes(op="call_function", target=torch.ops.aten.mm.default)
    assert product.meta["val"].dtype == torch.float32


def test_values_are_fake_tensors_that_share_storages() -> None:
    joint, _, _ = traced(lambda x: x.sin().t().cos(), X)
    sin = next(n for n in joint.graph.nodes if n.target is torch.ops.aten.sin.default)
    view = next(n for n in joint.graph.nodes if n.args == (sin,))
    assert isinstance(sin.meta["val"], torch_hooks.FakeTensor)
    assert torch_hooks.storage_key(sin.meta["val"]) == torch_hooks.storage_key(view.meta["val"])
    assert torch_hooks.fake_mode_of(sin) is not None
    assert sin.meta["partitioner_tag"] == "is_forward"
    assert "stack_trace" in sin.meta


def test_buffer_updates_stay_in_the_graph() -> None:
    norm = nn.BatchNorm1d(6)
    joint, _, _ = traced(norm, X)
    targets = [n.target for n in joint.graph.nodes]
    assert targets.count(torch.ops.aten.copy_.default) == 3
    assert torch.ops.aten._native_batch_norm_legit_functional.default in targets
    copied = next(n for n in joint.graph.nodes if n.target is torch.ops.aten.copy_.default)
    assert copied.meta["partitioner_tag"] == "must_be_in_forward"


def test_batch_norm_without_statistics_gives_the_same_bits() -> None:
    x, weight, bias = torch.randn(5, 6, 7, 7), torch.randn(6), torch.randn(6)
    mean, var = torch.zeros(6), torch.ones(6)
    full = torch.ops.aten._native_batch_norm_legit_functional(
        x, weight, bias, mean, var, True, 0.1, 1e-5
    )
    bare = torch.ops.aten._native_batch_norm_legit.no_stats(x, weight, bias, True, 0.1, 1e-5)
    assert all(torch.equal(a, b) for a, b in zip(full[:3], bare, strict=True))


def test_splitting_a_joint_graph_keeps_its_order_and_residuals() -> None:
    joint, count, options = traced(lambda x: (x.sin() * x.cos()).exp().sum(), X)
    saved = [n for n in joint.graph.nodes if str(n.target) in ("aten.exp.default",)]
    saved += [n for n in joint.graph.nodes if torch_hooks.is_primal(n)]
    forward, backward = torch_hooks.extract_forward_and_backward(
        joint,
        saved,
        num_fwd_outputs=count,
        static_lifetime_input_indices=options.get("static_lifetime_input_indices"),
    )
    names = [n.name for n in backward.graph.nodes if n.op == "placeholder"]
    assert names == ["exp", "primals_1", "tangents_1"]
    outputs = next(iter(forward.graph.find_nodes(op="output"))).args[0]
    assert [n.name for n in outputs[count:]] == ["exp", "primals_1"]


def test_boxed_execution_frees_what_is_used_up() -> None:
    graph = fx.Graph()
    a = graph.placeholder("a")
    graph.output((graph.call_function(operator.neg, (a,)),))
    run = torch_hooks.boxed_executor(fx.GraphModule(nn.Module(), graph))
    inputs = [torch.ones(2)]
    run(inputs)
    assert inputs == []


def test_random_ops_replay_their_state() -> None:
    x = torch.ones(100)
    torch.manual_seed(0)
    state, first = torch_hooks.run_and_save_rng_state(
        torch.ops.aten.native_dropout.default, x, 0.5, True
    )
    after = torch.get_rng_state()
    again = torch_hooks.run_with_rng_state(
        state, torch.ops.aten.native_dropout.default, x, 0.5, True
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(after, torch.get_rng_state())


def test_errors_pass_through_dynamo_unwrapped() -> None:
    class Ours(FxrematError):
        pass

    def backend(_module: object, _inputs: object) -> Any:
        raise Ours("as it is")

    with pytest.raises(Ours, match="as it is"):
        torch.compile(lambda x: x.sin(), backend=backend)(X)


def test_graph_breaks_are_told_to_the_backend() -> None:
    reasons: list[str | None] = []

    def backend(module: fx.GraphModule, _inputs: object) -> Any:
        reasons.append(torch_hooks.graph_break_of(module))
        assert torch_hooks.compiled_frame_id() is not None
        return module.forward

    def broken(x: torch.Tensor) -> torch.Tensor:
        y = x.sin()
        torch._dynamo.graph_break()
        return y.cos()

    torch.compile(broken, backend=backend)(X)
    assert reasons[0] is not None
    assert "test_torch_hooks.py" in reasons[0]
    assert reasons[1] is None
    assert torch_hooks.compiled_frame_id() is None


def test_impurity_does_not_count_random_numbers() -> None:
    graph = fx.Graph()
    a = graph.placeholder("a")
    drop = graph.call_function(torch.ops.aten.native_dropout.default, (a, 0.5, True))
    copy = graph.call_function(torch.ops.aten.copy_.default, (a, a))
    assert not torch_hooks.is_impure(drop)
    assert torch_hooks.is_impure(copy)


def test_flop_formulas() -> None:
    formula = torch_hooks.flop_formula(torch.ops.aten.mm.default)
    assert formula is not None
    a, b = torch.empty(2, 3), torch.empty(3, 5)
    assert formula(a, b, out_val=a @ b) == 2 * 2 * 3 * 5
    assert torch_hooks.flop_formula(torch.ops.aten.relu.default) is None


def test_attention_on_the_cpu_has_the_flops_of_the_others() -> None:
    q = torch.empty(2, 3, 8, 4)
    name = "_scaled_dot_product_flash_attention"
    for ending, given in (("for_cpu", (q, q, q)), ("for_cpu_backward", (q, q, q, q, q, q, 0.0))):
        formula = torch_hooks.flop_formula(getattr(torch.ops.aten, f"{name}_{ending}").default)
        assert formula is not None
        products = 2 if ending == "for_cpu" else 5
        assert formula(*given, out_val=q) == products * 2 * 2 * 3 * 8 * 8 * 4


def test_dynamo_traces_fake_tensors_without_memory() -> None:
    mode = torch_hooks.fake_mode()
    with mode:
        weight = torch.empty(2**20, 2**20, requires_grad=True)
        x = torch.empty(2, 2**20)
    shapes: list[tuple[int, ...]] = []

    def take(module: fx.GraphModule, _inputs: Sequence[Any]) -> None:
        nodes = module.graph.find_nodes(op="placeholder")
        shapes.extend(tuple(node.meta["example_value"].shape) for node in nodes)

    torch_hooks.trace_whole(lambda a: (a @ weight).sum(), (x,), {}, take)
    assert sorted(shapes) == [(2, 2**20), (2**20, 2**20)]


def test_sizes_inside_of_vmap_are_let_be() -> None:
    seen: list[fx.GraphModule] = []

    def take(module: fx.GraphModule, inputs: Sequence[Any]) -> None:
        torch_hooks.specialize_sizes(module, inputs, numbers=False)
        seen.append(module)

    torch_hooks.trace_whole(lambda a: torch.vmap(torch.sin)(a).sum(), (X,), {}, take)
    assert len(seen) == 1


def test_profiler_state_is_known() -> None:
    assert not torch_hooks.profiler_is_active()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        assert torch_hooks.profiler_is_active()
        assert not torch_hooks.unprofiled(torch_hooks.profiler_is_active)
        assert torch_hooks.unprofiled(torch.get_num_threads) == torch.get_num_threads()


def test_allocations_are_recorded_beside_a_profiler() -> None:
    def allocate() -> None:
        torch.zeros(100) + torch.zeros(100)

    def recorded() -> list[int]:
        return torch_hooks.allocation_events(allocate, torch.device("cpu"))

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        beside = torch_hooks.unprofiled(recorded)
    assert beside == recorded()
    assert [abs(nbytes) for nbytes in beside] == [400] * 6
    assert sum(beside) == 0


def test_torch_compile_takes_what_we_give_it() -> None:
    parameters = inspect.signature(torch.compile).parameters
    assert {"backend", "fullgraph", "dynamic", "options"} <= set(parameters)


def test_higher_order_ops_are_told_from_ops() -> None:
    assert torch_hooks.is_higher_order(torch.ops.higher_order.cond)
    assert torch_hooks.is_higher_order(torch.ops.higher_order.flex_attention)
    assert not torch_hooks.is_higher_order(torch.ops.aten.sin.default)
    assert not torch_hooks.is_higher_order(operator.getitem)


def test_regions_compiled_by_themselves_are_seen_in_the_graph() -> None:
    found: list[bool] = []

    def backend(module: fx.GraphModule, _inputs: object) -> Any:
        found.append(torch_hooks.has_compiled_regions(module))
        return module.forward

    region = torch.compiler.nested_compile_region(lambda x: x.sin())
    for function in (region, torch.sin):
        torch._dynamo.reset()
        # Dynamo writes a region that is called once into the graph itself.
        torch.compile(lambda x, f=function: f(x) + f(x + 1), backend=backend)(X)
    assert found == [True, False]


def test_negated_views() -> None:
    view = torch_hooks.negated_view(X.detach())
    assert view.is_neg()
    assert torch.equal(view, -X)


def test_strides_of_a_view() -> None:
    image = torch.empty_strided((4, 1, 3, 3), (9, 1, 3, 1))
    assert torch_hooks.view_strides(image, (-1, 1, 3, 3)) == image.view(-1, 1, 3, 3).stride()
    assert torch_hooks.view_strides(image, (4, 9)) == (9, 1)


def test_sizes_that_depend_on_the_data_have_bounds() -> None:
    def picked(x: torch.Tensor, few: torch.Tensor) -> torch.Tensor:
        return x.sin()[x > 0].sum() + few.sin().masked_select(few > 0).sum()

    joint, _, _ = traced(picked, X, torch.randn(1, requires_grad=True))
    made = [n.meta["val"] for n in joint.graph.nodes if torch_hooks.makes_sizes(n)]
    assert all(map(torch_hooks.depends_on_data, made))
    # Of one element torch says nothing here.
    assert [torch_hooks.largest_size(value.shape[0]) for value in made] == [24, None]
    torch_hooks.state_at_most(made[1].shape[0], 7)
    assert torch_hooks.largest_size(made[1].shape[0]) == 7


def test_what_dynamo_makes_for_a_call() -> None:
    found: list[int] = []

    def backend(module: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        def partition(joint: fx.GraphModule, given: Any, **options: Any) -> Any:
            found.append(len(torch_hooks.made_by_call(joint, module)))
            return default_partition(joint, given, **options)

        return torch_hooks.make_aot_backend(partition, torch_hooks.boxed_executor)(module, inputs)

    scale, array, scalar = np.float64(1.5), np.ones(6), torch.ones(())

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return (x * scale * scalar + torch.as_tensor(array)).sum()

    torch.compile(scaled, backend=backend, fullgraph=True)(X)
    assert found == [1]


def test_dynamo_lets_go_of_one_graph_alone_and_lists_the_latest_first() -> None:
    """What `compile_whole` stands on where there are more graphs than it keeps."""
    from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list as entries_of

    def function(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    kept: list[weakref.ref[Any]] = []

    def backend(module: fx.GraphModule, _inputs: object) -> Any:
        kept.append(weakref.ref(module))
        return module.forward

    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)
    for rows in (2, 3, 4, 2):
        compiled(torch.randn(rows))
    entries = entries_of(function.__code__)
    order = [entry.compile_id.frame_compile_id for entry in entries]
    assert order == [0, 2, 1]
    assert torch_hooks._evict_oldest(entries, 2)
    assert not torch_hooks._evict_oldest(entries, 2)
    del entries
    gc.collect()
    assert [module() is not None for module in kept] == [True, False, True]
    for rows in (2, 4, 3):
        compiled(torch.randn(rows))
    assert len(kept) == 4, "the one that was let go of is compiled anew, the others are not"


def test_a_graph_is_compiled_again_in_one_of_its_calls_by_other_halves() -> None:
    """Each goes by its own residuals; inputs that are written to and views that are returned, too,
    which AOTAutograd sees to outside of the graphs."""
    joints: list[fx.GraphModule] = []
    calls: list[tuple[torch.Tensor, ...]] = []
    saved: list[int] = []

    def partition(joint: fx.GraphModule, inputs: Any, **options: Any) -> Any:
        joints.append(joint)
        return default_partition(copy.deepcopy(joint), inputs, **options)

    def backend(module: fx.GraphModule, inputs: Any) -> Any:
        torch_hooks.specialize_sizes(module, inputs, numbers=False)
        assert torch_hooks.numbers_are_fixed(module, inputs)
        ways: list[torch_hooks.CompileAgain] = []

        def fewer(nothing: fx.GraphModule, inputs: Any, **options: Any) -> Any:
            assert len(nothing.graph.nodes) == 0
            return min_cut_rematerialization_partition(joints[-1], inputs, **options)

        def counted(graph: fx.GraphModule) -> Any:
            saved.append(len(graph.graph.find_nodes(op="placeholder")))
            return torch_hooks.boxed_executor(graph)

        compile_graph = torch_hooks.make_aot_backend(partition, counted, ways.append)
        run = compile_graph(module, inputs)
        (again,) = ways

        def call(*args: Any) -> Any:
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
            kept = [each.detach().clone() for each in tensors]
            first = run(*args)
            after = [each.detach().clone() for each in tensors]
            for each, before in zip(tensors, kept, strict=True):
                each.data.copy_(before)
            state = torch.get_rng_state()
            with torch_hooks.compiling_again():
                other = again(fewer, counted)
            assert torch.equal(state, torch.get_rng_state())
            calls.append(other(*args))
            assert all(map(torch.equal, tensors, after))
            return first

        return torch_hooks.without_dynamo(call)

    weight, buffer = nn.Parameter(torch.randn(6, 6)), torch.zeros(6)

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        turned = (x @ weight).sin().exp().sin()
        buffer.add_(turned.detach().sum(0))
        return turned.sum(), turned.t(), weight.view(-1)

    compiled = torch.compile(function, backend=backend, fullgraph=True)
    for rows in (4, 5):  # the second is traced with a number for the size
        results = compiled(torch.randn(rows, 6))
        assert all(map(torch.equal, results, calls[-1]))
        expected, found = (
            torch.autograd.grad(r[0] + r[1].sum(), weight)[0] for r in (results, calls[-1])
        )
        assert torch.equal(expected, found)
    assert len(joints) == 2
    assert len(set(saved)) > 2, "the halves were cut elsewhere"


@pytest.mark.skipif(not torch_hooks._RESUMES_INSIDE, reason="torch 2.13 has it")
def test_a_graph_that_ends_inside_goes_on_behind_the_call() -> None:
    graphs: list[int] = []

    def backend(module: fx.GraphModule, _inputs: object) -> Any:
        graphs.append(len(module.graph.nodes))
        return module.forward

    ends = torch_hooks.without_dynamo(lambda x: x)

    def inner(x: torch.Tensor) -> torch.Tensor:
        return ends(x.sin()).cos()

    compiled = torch_hooks.compile_whole(
        lambda x: inner(x.sin()).cos(), backend, 8, fullgraph=False, ends_inside=True
    )
    assert torch.equal(compiled(X), X.sin().sin().cos().cos())
    assert graphs == [4, 4], "an input, two ops, the output"


@pytest.mark.parametrize("number", [int, float])
def test_numbers_that_change_are_told_from_sizes(number: type[int] | type[float]) -> None:
    fixed: list[bool] = []

    def backend(module: fx.GraphModule, inputs: Any) -> Any:
        torch_hooks.specialize_sizes(module, inputs, numbers=False)
        fixed.append(torch_hooks.numbers_are_fixed(module, inputs))
        return torch_hooks.make_aot_backend(default_partition, torch_hooks.boxed_executor)(
            module, inputs
        )

    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, n: x.sin() * n + x.shape[0] // 2, backend=backend, fullgraph=True
    )
    with torch._dynamo.config.patch(specialize_float=False):
        for rows, n in ((2, 2), (3, 2), (3, 3)):
            compiled(torch.randn(rows), number(n))
    assert fixed == [True, True, False]


def test_memory_events_are_of_what_was_allocated_since() -> None:
    before = [torch.empty(1000)]
    for _ in range(2):  # the second time addresses are known from the first
        torch_hooks.start_memory_events()
        held = torch.empty(500)
        before.clear()
        torch.empty(250)
        assert torch_hooks.take_memory_events() == [2000, 1000, -1000]
        del held
        before.append(torch.empty(1000))
    assert not torch_hooks.profiler_is_active()


def test_where_a_backward_is_and_what_it_keeps() -> None:
    seen: list[tuple[bool, bool]] = []
    x = torch.ones(3, requires_grad=True)
    y = x.sin()
    y.register_hook(lambda _: seen.append((torch_hooks.in_backward(), torch_hooks.keeps_graph())))
    ended: list[bool] = []
    y.register_hook(lambda _: torch_hooks.when_backward_ends(lambda: ended.append(True)))
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert seen == [(True, True), (True, False)]
    assert ended == [True, True]
    assert not torch_hooks.in_backward()


def test_the_node_of_a_compiled_backward_is_found_behind_views() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x.sin()
        return y.t(), y.cos()

    results = torch.compile(function, backend="aot_eager")(X)
    node = torch_hooks.compiled_backward_of(results)
    assert node is not None
    assert node.name() == "CompiledFunctionBackward"
    assert torch_hooks.compiled_backward_of((X.sin(),)) is None


def test_storages_tell_how_many_hold_them() -> None:
    x = torch.ones(3)
    holders = torch_hooks.storage_holders(x)
    one = holders()
    other = x.detach()
    assert holders() == one + 1
    del x
    assert holders() == one
    del other
    assert holders() == 0


def test_a_residual_that_was_returned_holds_its_storage_beside_the_result() -> None:
    seen: list[tuple[int, Callable[[], int]]] = []

    class Saves(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            result = x.exp()
            holders = torch_hooks.storage_holders(result)
            seen.append((holders(), holders))
            ctx.save_for_backward(result)
            return result

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * ctx.saved_tensors[0]

    result = Saves.apply(torch.ones(3, requires_grad=True))
    total = result.sum()
    ((own, holders),) = seen
    assert holders() > own
    del result
    assert holders() == own
    total.backward()
    assert holders() == 0


def test_optimizers_call_before_they_step() -> None:
    parameter = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    called: list[bool] = []
    hook = torch_hooks.call_before_optimizers(lambda *_: called.append(True))
    optimizer.step()
    hook.remove()
    optimizer.step()
    assert called == [True]


def test_a_store_keeps_what_came_first() -> None:
    assert torch_hooks.shared_store() is None, "there is one process"
    store = torch.distributed.PrefixStore("fxremat", torch.distributed.HashStore())
    assert store.compare_set("key", "", "first") == b"first"
    assert store.compare_set("key", "", "second") == b"first"


def test_ranks_meet_in_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = torch.distributed
    method = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("gloo", init_method=method, rank=0, world_size=1)
    try:
        assert torch_hooks.shared_store() is None, "it is one of one"
        monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
        assert isinstance(torch_hooks.shared_store(), distributed.Store)
    finally:
        distributed.destroy_process_group()


def test_a_stand_in_has_the_state_of_its_module() -> None:
    state = _composable_state._State()
    module, other = nn.Linear(1, 1), nn.Linear(1, 1)
    torch_hooks.share_module_state(module, other)
    assert _composable_state._get_module_state(other) is None
    _composable_state._insert_module_state(module, state)
    torch_hooks.share_module_state(module, other)
    assert _composable_state._get_module_state(other) is state


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


@pytest.mark.parametrize("hooked", [False, True])
def test_a_layer_of_torchs_that_runs_uncompiled_is_seen(hooked: bool) -> None:
    """As under FSDP, whose hooks break an `nn.Sequential` between its blocks."""
    model = nn.Sequential(_Layer(), _Layer())
    for layer in model if hooked else ():
        layer.register_forward_pre_hook(torch_hooks.without_dynamo(lambda *_: None))
    seen: list[str | None] = []
    not_the_users = torch_hooks._NOT_THE_USERS

    def backend(module: fx.GraphModule, _inputs: Sequence[Any]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            # As a backend of ours, whose frames are not the user's.
            patch.setattr(torch_hooks, "_NOT_THE_USERS", (*not_the_users, __file__))
            seen.append(torch_hooks.running_inside())
        return module.forward

    torch.compile(model, backend=backend)(torch.ones(2, 4))
    assert seen == (["Sequential.forward"] * 2 if hooked else [None])


def test_a_graph_of_aotautograds_may_be_kept_after_one_that_was_not() -> None:
    def boxed(module: fx.GraphModule, _inputs: object) -> Any:
        return torch_hooks.boxed_executor(module)

    backend = torch._dynamo.backends.common.aot_autograd(fw_compiler=boxed)
    compiled = torch.compile(lambda x: x.sin().exp().sum(), backend=backend)
    x = torch.randn(8, requires_grad=True)

    def loss() -> torch.Tensor:
        return compiled(x)

    loss().backward()
    with pytest.raises(RuntimeError, match="donated"):
        loss().backward(retain_graph=True)
    kept = loss()
    torch_hooks.let_graph_be_kept(torch_hooks.compiled_backward_of([kept]))
    kept.backward(retain_graph=True)
    x.grad = None
    kept.backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, x.detach().cos() * x.detach().sin().exp())


def test_hooks_on_accumulated_gradients_are_found() -> None:
    parameter = nn.Parameter(torch.ones(2))
    assert torch_hooks.called_when_accumulated(parameter) == []
    handle = torch_hooks.call_when_accumulated(parameter, print)
    assert torch_hooks.called_when_accumulated(parameter) == [print]
    handle.remove()
    assert torch_hooks.called_when_accumulated(parameter) == []


def test_ignored_log_calls_can_be_written() -> None:
    (functions,) = torch_hooks._ignored_logging([print]).values()
    as_of_torch_2_11 = torch_hooks._Functions(functions)
    assert print in as_of_torch_2_11
    assert logging.Logger.info in list(as_of_torch_2_11)
    assert copy.deepcopy(as_of_torch_2_11) is as_of_torch_2_11
    assert json.dumps({"functions": as_of_torch_2_11}) == '{"functions": {}}'


def test_trees_are_flattened_and_built() -> None:
    tree = {"a": [1, None], "b": (torch.ones(1),)}
    leaves, nesting = torch_hooks.flatten_tree(tree)
    assert torch_hooks.unflatten_tree(leaves, nesting) == tree
    assert not torch_hooks.is_leaf(nesting)
    assert torch_hooks.is_leaf(torch_hooks.flatten_tree(1)[1])


def test_nodes_are_numbered_in_the_order_of_their_making() -> None:
    x = torch.ones(1, requires_grad=True)
    before = x * 2
    since = torch_hooks.next_node_number()
    after = before * 2
    number = torch_hooks.node_number
    assert number(before.grad_fn) < since <= number(after.grad_fn)


def test_hooks_of_tensors_are_set_aside() -> None:
    x, calls = torch.ones(1, requires_grad=True), [0]

    def count(_: torch.Tensor) -> None:
        calls[0] += 1

    assert not torch_hooks.has_gradient_hooks(x)
    x.register_hook(count)
    assert torch_hooks.has_gradient_hooks(x)
    for expected in (0, 1):
        context = contextlib.nullcontext() if expected else torch_hooks.without_tensor_hooks([x])
        with context:
            torch.autograd.grad(x * 2, x)
        assert calls == [expected]


def test_transforms_of_functions_are_seen() -> None:
    assert not torch_hooks.in_function_transform()
    seen: list[bool] = []
    torch.func.vmap(lambda x: seen.append(torch_hooks.in_function_transform()) or x)(torch.ones(2))
    assert seen == [True]


def test_changes_in_place_are_counted() -> None:
    x = torch.ones(1)
    before = torch_hooks.versions([x, 1, None])
    alias = x.detach()
    alias.add_(1)
    assert torch_hooks.versions([x, 1, None]) != before


def test_whether_autocast_caches() -> None:
    with torch.autocast("cpu", cache_enabled=False):
        assert not torch_hooks.autocast_caches()
    with torch.autocast("cpu"):
        assert torch_hooks.autocast_caches()


def test_marks_and_checkpoint_policies_reach_the_joint_graph() -> None:
    import functools

    from torch.utils.checkpoint import (
        CheckpointPolicy,
        checkpoint,
        create_selective_checkpoint_contexts,
    )

    def saves_sines(_context: object, op: object, *_args: object, **_kwargs: object) -> object:
        sine = op is torch.ops.aten.sin.default
        return CheckpointPolicy.MUST_SAVE if sine else CheckpointPolicy.MUST_RECOMPUTE

    context = functools.partial(create_selective_checkpoint_contexts, saves_sines)

    def step(x: torch.Tensor) -> torch.Tensor:
        x = torch_hooks.marked(x.cos(), "mine")
        return checkpoint(lambda y: y.sin().exp(), x, use_reentrant=False, context_fn=context).sum()

    found: list[torch.fx.GraphModule] = []

    def partition(joint: torch.fx.GraphModule, inputs: object, **named: Any) -> Any:
        found.append(joint)
        return default_partition(joint, inputs, **named)

    from torch._functorch.partitioners import default_partition

    backend = torch_hooks.make_aot_backend(partition, torch_hooks.boxed_executor)
    torch.compile(step, backend=backend)(torch.randn(3, requires_grad=True)).backward()
    nodes = {node.name: node for node in found[0].graph.nodes}
    marks = [name for name, node in nodes.items() if torch_hooks.mark_of(node) == "mine"]
    assert len(marks) == 1
    assert nodes[marks[0]].args[0] is nodes["cos"]
    policies = {name: torch_hooks.checkpoint_policy(nodes[name]) for name in ("cos", "sin", "exp")}
    assert policies == {"cos": "", "sin": "MUST_SAVE", "exp": "MUST_RECOMPUTE"}


def test_a_number_that_changes_is_a_symbol_and_what_is_taken_of_it_is_noted() -> None:
    """Even where the traced graph doesn't use it."""
    found: list[Any] = []

    def traced(step: Callable[..., Any]) -> Callable[[int], bool] | None:
        take = lambda *_: found.append(torch_hooks.trace_holds_for())  # noqa: E731
        number = torch_hooks.changing_number(0)
        torch_hooks.trace_whole(step, (torch.ones(2), number), {}, take)
        return found[-1]

    assert traced(lambda x, i: x * (0.5 * i)) is None
    holds = traced(lambda x, i: x.sin() if i % 3 else x.cos())
    assert holds is not None
    assert [holds(number) for number in range(4)] == [True, False, False, True]


def test_gradients_of_one_root() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(_: Any, *gradients: torch.Tensor) -> torch.Tensor:
            return gradients[0] * 2

    x, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    made = torch_hooks.apply_of(Double)(x)
    found = torch_hooks.gradients(made, torch.full((2,), 3.0), (x, unused))
    assert torch.equal(made, torch.full((2,), 2.0))
    assert found[1] is None
    assert found[0] is not None
    assert torch.equal(found[0], torch.full((2,), 6.0))
    assert x.grad is None


def test_tangents_name_the_outputs_that_they_are_gradients_of() -> None:
    seen: list[int | None] = []

    def partition(joint: fx.GraphModule, inputs: Any, *, num_fwd_outputs: int, **_: Any) -> Any:
        given = joint.graph.find_nodes(op="placeholder")
        seen.extend(torch_hooks.output_of_tangent(n) for n in given if torch_hooks.is_tangent(n))
        return default_partition(joint, inputs, num_fwd_outputs=num_fwd_outputs)

    backend = torch_hooks.make_aot_backend(partition, torch_hooks.boxed_executor)
    torch.compile(lambda x: (x.detach() * 2, x * 3), backend=backend)(
        torch.ones(2, requires_grad=True)
    )
    assert seen == [1]


def test_tensors_of_a_graphs_own() -> None:
    module = fx.GraphModule(torch.nn.Linear(2, 2), fx.Graph())
    assert torch_hooks.own_tensors(module) == []
    module.register_buffer("constant", torch.ones(1))
    assert torch_hooks.own_tensors(module) == [module.constant]


def test_a_function_without_dynamo_says_why_in_the_summary_of_a_break() -> None:
    kept_out = torch_hooks.without_dynamo(lambda x: x + 1, "it runs by itself")
    x = torch.ones(2)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        torch_hooks.trace_whole(lambda x: kept_out(x), (x,), {}, lambda *_: None)
    reason = torch_hooks.unwrap_graph_break(caught.value)
    assert reason is not None
    assert torch_hooks.summary_of_break(reason) == "it runs by itself"
    assert torch_hooks.summary_of_break("one\ntwo") == "one"


def test_an_operator_on_a_function_gets_a_graph_of_all_that_it_reads() -> None:
    seen: list[fx.GraphModule] = []

    def call(body: fx.GraphModule, *operands: torch.Tensor, power: int) -> Any:
        seen.append(body)
        return tuple(t**power for t in body(*operands))

    operator = torch_hooks.GraphOperator("tests_hook", call)
    weight = torch.rand(4, requires_grad=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        return operator(lambda y: (y * weight,), x.sin(), power=2)[0]

    x = torch.rand(4, requires_grad=True)
    for backend in ("eager", "aot_eager"):
        torch._dynamo.reset()
        found = torch.compile(function, backend=backend, fullgraph=True)(x)
        assert torch.equal(found, (x.sin() * weight) ** 2)
        assert found.requires_grad
    with torch.no_grad():
        assert torch.equal(torch.compile(function, backend="aot_eager")(x), found)
    source = torch_hooks.source_of(seen[0].graph)
    names: dict[str, Any] = {}
    exec(source, names)
    assert torch.equal(names["forward"](None, x, weight)[0], x * weight)


def test_ops_that_run_are_seen_with_their_arguments() -> None:
    seen = torch_hooks.OpsSeen()
    with torch_hooks.untraced(), torch_hooks.fake_mode(), seen:
        F.dropout(torch.rand(4, requires_grad=True), 0.25)
    (draw,) = (given for op, given in seen.seen if op is torch.ops.aten.bernoulli_.float)
    assert draw("p") == 0.75


def test_functions_that_dynamo_traces_only_within_others() -> None:
    graphs: list[fx.GraphModule] = []

    def backend(module: fx.GraphModule, _inputs: object) -> Any:
        graphs.append(module)
        return module

    def inner(x: torch.Tensor) -> Any:
        return torch.compiler.is_dynamo_compiling(), x + 1

    torch_hooks.never_compile_frame(inner)
    compiled = torch.compile(lambda x: inner(x), backend=backend)
    assert compiled(torch.ones(2))[0]
    assert len(graphs) == 1
