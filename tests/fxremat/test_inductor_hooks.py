"""The private Inductor API that planning kernels stands on: fails loudly when torch moves it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._functorch import config as functorch
from torch._inductor import config
from torch._inductor.custom_graph_pass import CustomPartitionerFn

from fxremat import inductor_hooks, torch_hooks
from fxremat.inductor_hooks import (
    Kind,
    Layout,
    Pair,
    compile_pair,
    joined,
    lines,
    make_inductor_backend,
)
from fxremat.inductor_hooks import compile as hooks_compile


def compiled(function: Any, *inputs: Any) -> Pair:
    """What Inductor makes of the step of a function, compiled within AOTAutograd's partition."""
    found: list[Pair] = []

    class Done(Exception):
        pass

    def partition(joint: Any, _inputs: Any, *, num_fwd_outputs: int, **_options: Any) -> Any:
        found.append(
            compile_pair(joint, num_fwd_outputs=num_fwd_outputs, static_lifetime_input_indices=())
        )
        raise Done

    backend = make_inductor_backend(partition, torch_hooks.boxed_executor)
    torch._dynamo.reset()
    try:
        torch.compile(function, backend=backend, fullgraph=True)(*inputs)
    except Exception as error:
        if not found:
            raise error
    return found[0]


def test_lines_of_a_small_step() -> None:
    """Every kind of line that a step of a convolution, a linear layer and dropout has."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 2))
    x = torch.randn(2, 1, 4, 4)
    pair = compiled(lambda x: net(x).square().sum(), x)
    both = [*pair.forward.lines, *pair.backward.lines]
    unknown = [line for line in both if line.kind is Kind.UNKNOWN]
    assert not unknown
    kinds = {line.kind for line in both}
    assert kinds >= {Kind.ALLOCATE, Kind.KERNEL, Kind.OUT, Kind.OP, Kind.ITEM}
    # Backward takes what forward returns last, then the gradient of the loss.
    assert pair.num_fwd_outputs == 1
    saved = len(pair.forward.outputs) - 1
    assert pair.tangents == ("tangents_1",)
    assert len(pair.backward.inputs) == saved + 1
    for line in both:
        assert line.text
        if line.kind is Kind.KERNEL:
            assert line.writes
            assert line.source != line.name  # what it does was defined before
            assert line.name in {**pair.forward.namespace, **pair.backward.namespace}
        if line.kind is Kind.ALLOCATE:
            assert line.text[0].startswith(f"{line.makes} = empty_strided_cpu(")
    seeds = [line for line in both if line.op is torch.ops.aten.randint.low_out]
    assert len(seeds) == 1
    products = [line for line in both if line.kind is Kind.OUT and "mm" in line.name]
    assert products
    assert all(line.writes == (line.text[-1].split("out=")[1].rstrip(")"),) for line in products)
    (convolution,) = [line for line in pair.backward.lines if line.kind is Kind.OP]
    items = [line for line in both if line.kind is Kind.ITEM]
    assert {line.views for line in items} == {(convolution.makes,)}
    assert Layout((2, 1, 3, 3), (9, 9, 3, 1), torch.float32, torch.device("cpu")) in [
        line.layout for line in items
    ]


def test_parts_of_a_concatenation() -> None:
    x = torch.randn(4, 4, requires_grad=True)
    pair = compiled(lambda x: torch.cat([x @ x, (x + 1) @ x, x @ x.sin()]).sum() + 0, x)
    aliases = [line for line in pair.forward.lines if line.kind is Kind.ALIAS]
    assert not [line for line in pair.forward.lines if line.kind is Kind.UNKNOWN]
    assert len(aliases) in (0, 3)  # where it isn't one kernel: a name for each part


def test_sums_by_threads_are_known() -> None:
    table = torch.randn(6, 4, requires_grad=True)

    def look_up(i: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return F.embedding(i, table).square().sum()

    with config.patch({"cpp.threads": 2}):
        pair = compiled(look_up, torch.arange(4), table)
    assert any(line.atomic for line in pair.backward.lines)


def test_inductors_arguments_on_a_gpu() -> None:
    """How Triton's pointers are named, from a call as Inductor notes it."""

    call = SimpleNamespace(
        kernel_name="triton_poi_fused_0",
        call_args=("primals_1", "buf0", "ws_0", 128),
        triton=True,
        triton_meta={"signature": dict.fromkeys(("in_ptr0", "out_ptr0", "ws_ptr", "xnumel"))},
        inductor_meta={"mutated_arg_names": []},
    )
    text = ("triton_poi_fused_0.run(primals_1, buf0, ws_0, 128, stream=stream0)",)
    line = lines._read_kernel(call, text, {})
    assert line is not None
    assert line.writes == ("buf0", "ws_0")
    call.triton_meta = {"signature": dict.fromkeys(("in_ptr0", "mystery", "ws_ptr", "xnumel"))}
    assert lines._read_kernel(call, text, {}) is None


def test_settings_that_torch_knows() -> None:
    """A setting that torch no longer has would silently be left out."""
    for module, settings, gone in (
        (config, hooks_compile._INDUCTOR, set[str]()),
        (functorch, hooks_compile._FUNCTORCH, set[str]()),
    ):
        assert set(settings) - set(hooks_compile.known(module, settings)) == gone


def test_reinterpreted_tensors() -> None:
    x = torch.arange(12.0)
    assert torch.equal(
        inductor_hooks.reinterpret(x[2:], (2, 2), (4, 1), 1), x[3:].as_strided((2, 2), (4, 1))
    )


def test_seeds_of_attention_lie_on_the_cpu() -> None:
    """By their places among what the ops return and take, as the schemas name them."""
    for name in torch_hooks.LEAVE_SEEDS_ON_CPU:
        op = getattr(torch.ops.aten, name).default
        named = [each.name for each in op._schema.returns]
        found = [place for place in range(len(named)) if inductor_hooks.is_seed_on_cpu(op, place)]
        assert [named[place] for place in found] == ["philox_seed", "philox_offset"]
    for name in torch_hooks.READ_SEEDS_ON_CPU:
        taken = [each.name for each in getattr(torch.ops.aten, name).default._schema.arguments]
        assert set(torch_hooks.SEEDS) <= set(taken)
    assert not inductor_hooks.is_seed_on_cpu(torch.ops.aten.native_dropout.default, 2)


def test_what_is_written_in_place_is_noted_and_nests_and_draws_are_apart() -> None:
    """One of Inductor's own checks, a limit of its C++ backend and its choice of fusions."""
    torch.manual_seed(0)
    net = nn.Linear(32, 32)
    x, y = torch.randn(64, 32), torch.randint(32, (64,))
    pair = compiled(lambda x, y: F.cross_entropy(F.dropout(net(x), 0.5), y), x, y)
    # The gradient of the logits may be written over what forward kept of them.
    residuals = set(pair.backward.inputs) - set(pair.tangents)
    over = set(pair.backward.in_place.values())
    assert over & residuals
    made = {line.makes for line in (*pair.forward.lines, *pair.backward.lines)}
    assert {*pair.forward.in_place, *pair.backward.in_place} <= made
    # Nothing is really written in place.
    calls = [line for line in (*pair.forward.lines, *pair.backward.lines) if line.source]
    assert not any("in_out_ptr" in line.source for line in calls)
    drawing = [line for line in calls if "rand_cpu" in line.source]
    assert len(drawing) == 1
    assert "float* in_ptr0" not in drawing[0].source
    assert len([line for line in pair.forward.lines if line.source]) >= 3


def test_inductors_seam_for_partitioners() -> None:
    class Own:
        def __call__(self, *_args: Any, **_named: Any) -> Any: ...

        def uuid(self) -> str:
            return "own"

    assert not isinstance(Own(), CustomPartitionerFn)
    inductor_hooks.be_partitioner(Own)
    assert isinstance(Own(), CustomPartitionerFn)
    with inductor_hooks.configured_by({"custom_partitioner_fn": Own()}):
        assert isinstance(config.custom_partitioner_fn, Own)
    assert config.custom_partitioner_fn is None


def test_written_wrappers_are_replayed() -> None:
    """Without a kernel: what is in use at the end is the loss, its gradient and the gradients."""
    found: list[list[inductor_hooks.Moment]] = []

    class Done(Exception):
        pass

    def partition(joint: Any, _inputs: Any, *, num_fwd_outputs: int, **_options: Any) -> Any:
        inductor_hooks.merge_equal_nodes(joint)
        halves = inductor_hooks.min_cut(inductor_hooks.copy_graph(joint), num_fwd_outputs, ())
        codes = inductor_hooks.generate_pair(*halves, num_fwd_outputs)

        def size(tensor: torch.Tensor) -> int:
            return tensor.untyped_storage().nbytes()

        def held(tensor: torch.Tensor) -> bool:
            return tensor.numel() == 1

        found.append(inductor_hooks.replay_pair(codes, *halves, num_fwd_outputs, size, held))
        raise Done

    x, weight = torch.randn(32, 8), torch.randn(8, 8, requires_grad=True)
    backend = make_inductor_backend(partition, torch_hooks.boxed_executor)
    torch._dynamo.reset()
    with pytest.raises(Exception, match="Done"):
        torch.compile(lambda x: F.gelu(x @ weight).sum(), backend=backend, fullgraph=True)(x)
    (moments,) = found
    assert moments[-1].nbytes == 4 + 4 + weight.nbytes
    # The product, which is kept, and its gradient.
    assert max(moment.nbytes for moment in moments) >= 2 * x.nbytes


def test_kernels_of_a_graph_are_compiled_in_few_files() -> None:
    """Joined or alone, a kernel computes the same; torch's template of bindings is as expected."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    def source(factor: int) -> str:
        return f"""
#include <torch/csrc/inductor/cpp_prefix.h>
static float twice(float x) {{ return {factor} * x; }}
extern "C" void kernel(const float* in_ptr0, float* out_ptr0, const int64_t n)
{{
    #pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) out_ptr0[i] = twice(in_ptr0[i]);
}}
"""

    assert joined.can_join(source(2))
    assert not joined.can_join("#define N 3\n" + source(2))
    types = ("const float*", "float*", "const int64_t")
    kernels = [joined.Waiting(types, source(factor)) for factor in (2, 3)]
    asked: list[str] = []
    load = CppPythonBindingsCodeCache.load_async
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            CppPythonBindingsCodeCache,
            "load_async",
            lambda code, *args, **named: asked.append(code) or load(code, *args, **named),
        )
        functions = joined.compile_together(kernels, lambda task: task())
    assert len(asked) == 1
    x, made = torch.arange(3.0), torch.empty(3)
    for function, factor in zip(functions, (2, 3), strict=True):
        function(x, made, 3)
        assert torch.equal(made, factor * x)
    with pytest.raises(RuntimeError, match="requires 3 args"):
        functions[0](x)
