"""Inductor's compilation of a joint graph, set up so that each kernel can be planned by itself."""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import torch
import torch._functorch.config
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo import compiled_autograd
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import detect_fake_mode
from torch._functorch import partitioners
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode

from fxremat.inductor_hooks.joined import joining_kernels
from fxremat.inductor_hooks.lines import Pair, Recorded, Wrapper, recording
from fxremat.torch_hooks import (
    CompileAgain,
    GraphCompiler,
    OnTraced,
    Partitioner,
    aot_compiler,
    hear_of_traces,
)

# What makes each kernel a function of its buffers, and the wrapper one of Python lines.
_INDUCTOR = {
    "allow_buffer_reuse": False,
    "inplace_buffers": False,
    "inplace_padding": False,
    "memory_planning": False,
    "cpp_wrapper": False,
    "fx_wrapper": False,
    "graph_partition": False,
    "custom_partitioner_fn": None,
    "fx_graph_cache": False,
    "fx_graph_remote_cache": False,
    "size_asserts": False,
    "alignment_asserts": False,
    "nan_asserts": False,
    "freezing": False,
    "profile_bandwidth": False,
    "triton.cudagraphs": False,
    "triton.cudagraph_trees": False,
    # Its kernels share one buffer of semaphores over a whole graph.
    "triton.cooperative_reductions": False,
    "triton.autotune_at_compile_time": False,
    "triton.mix_order_reduction": False,  # its sums over a workspace are no kernels
    "triton.debug_sync_graph": False,
    "triton.debug_sync_kernel": False,
}
_FUNCTORCH = {
    "donated_buffer": False,
    "enable_autograd_cache": False,
    "activation_memory_budget": 1.0,
    # As in eager, where a backward is called outside of the autocast around its forward.
    "backward_pass_autocast": "off",
    "unlift_effect_tokens": True,
}


def known(config: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Those of some settings that this torch has."""

    def has(path: str) -> bool:
        holder, found = config, True
        for part in path.split("."):
            found = found and hasattr(holder, part)
            holder = getattr(holder, part, None)
        return found

    return {path: value for path, value in settings.items() if has(path)}


@contextlib.contextmanager
def configured() -> Generator[None, None, None]:
    """Inductor and AOTAutograd as planning needs them, on this thread and for now."""
    from torch._inductor import config

    functorch = torch._functorch.config
    with (
        config.patch(known(config, _INDUCTOR)),
        functorch.patch(known(functorch, _FUNCTORCH)),
    ):
        yield


def make_inductor_backend(
    partitioner: Partitioner,
    compile_graph: GraphCompiler,
    on_traced: OnTraced = lambda _again: None,
) -> Callable[..., Callable[..., Any]]:
    """A Dynamo backend that traces as Inductor does: its passes before autograd and decompositions.

    Both halves that `partitioner` makes are compiled by `compile_graph`. Before it is called,
    `on_traced` is given what compiles the same graph again.
    """
    from torch._inductor import compile_fx
    from torch._inductor.virtualized import V

    def note(again: CompileAgain) -> None:
        def as_configured(partitioner: Partitioner, compile_graph: GraphCompiler) -> Any:
            with configured():
                return again(partitioner, compile_graph)

        on_traced(as_configured)

    def compile_module(module: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        fake_mode = detect_fake_mode(inputs) or FakeTensorMode(allow_non_fake_inputs=True)
        context = TracingContext.try_get() or TracingContext(fake_mode)
        make = aot_autograd(
            fw_compiler=aot_compiler(compile_graph),
            partition_fn=partitioner,
            decompositions=compile_fx.select_decomp_table(),
            keep_inference_input_mutations=True,
        )
        with (
            V.set_fake_mode(fake_mode),
            tracing(context),
            compiled_autograd._disable(),
            configured(),
        ):
            with enable_python_dispatcher():
                traced = compile_fx.run_pre_grad_passes(module, inputs)
            with hear_of_traces(traced, note):
                return make(traced, inputs)

    return compile_module


def compile_pair(
    joint: fx.GraphModule,
    *,
    num_fwd_outputs: int,
    static_lifetime_input_indices: Sequence[int],
) -> Pair:
    """Compile a joint graph as Inductor does: its passes, its min-cut, its kernels.

    Called where AOTAutograd asks for a partition. The joint graph is changed.
    """
    from torch._inductor import compile_fx

    inputs = joint.graph.find_nodes(op="placeholder")
    joint_inputs = (
        [node.meta["val"] for node in inputs if not partitioners._is_tangent(node)],
        [node.meta["val"] for node in inputs if partitioners._is_tangent(node)],
    )
    with configured(), torch.no_grad():
        forward, backward = compile_fx.partition_fn(
            joint,
            joint_inputs,
            num_fwd_outputs=num_fwd_outputs,
            static_lifetime_input_indices=list(static_lifetime_input_indices),
        )
        output = next(iter(forward.graph.find_nodes(op="output")))
        results = cast("tuple[Any, ...]", output.args[0])
        output.meta["user_visible_output_idxs"] = [
            k for k in range(num_fwd_outputs) if isinstance(results[k], fx.Node)
        ]
        with TracingContext.report_output_strides() as strides:
            first = _compile(forward, examples_of(forward), is_backward=False)
        examples = examples_of(backward)
        # Numbers that are saved come last there and first here.
        place_of = {
            node.name: k for k, node in enumerate(backward.graph.find_nodes(op="placeholder"))
        }
        for node, stride in zip(
            results[num_fwd_outputs:], strides[num_fwd_outputs:] if strides else (), strict=False
        ):
            # Kernels may lay out what they save otherwise than it was traced.
            k = place_of[node.name]
            if stride is not None and isinstance(examples[k], torch.Tensor):
                examples[k] = examples[k].as_strided(examples[k].size(), stride)
        output = next(iter(backward.graph.find_nodes(op="output")))
        output.meta["user_visible_output_idxs"] = []
        second = _compile(backward, examples, is_backward=True)
    number = len(results) - num_fwd_outputs
    return Pair(first, second, num_fwd_outputs, second.inputs[number:])


def missing_compiler(device_type: str) -> str:
    """What Inductor lacks to compile for a device; empty where it lacks nothing."""
    if device_type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return "a C++ compiler"
        return ""
    from torch.utils._triton import has_triton

    return "" if has_triton() else "Triton"


def configuration() -> str:
    """All settings that change what Inductor makes of a graph."""
    from torch._inductor import config

    flags = (
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch.backends.cuda.matmul.allow_tf32,
    )
    return f"{config.get_hash()!r}{flags}"


def examples_of(module: fx.GraphModule) -> list[Any]:
    return [node.meta["val"] for node in module.graph.find_nodes(op="placeholder")]


def compile_half(module: fx.GraphModule, examples: Sequence[Any], *, is_backward: bool) -> Any:
    """What Inductor makes of a forward or a backward graph, without CUDA graphs."""
    from torch._inductor import compile_fx
    from torch._inductor.utils import BoxedBool

    return compile_fx.compile_fx_inner(
        module,
        examples,
        static_input_idxs=(),
        cudagraphs=BoxedBool(False),
        is_backward=is_backward,
        is_inference=False,
    )


def _compile(module: fx.GraphModule, examples: Sequence[Any], *, is_backward: bool) -> Wrapper:
    """One half of a step, compiled and read."""
    from torch._inductor.virtualized import V

    apart = V.set_choices_handler(_with_draws_apart(V.choices))
    given = len(examples) if is_backward else 0
    with (
        recording() as recorded,
        _ungrouped(),
        joining_kernels(),
        _noting_in_place(recorded, given),
        apart,
    ):
        compiled = compile_half(module, examples, is_backward=is_backward)
    assert recorded.wrapper is not None
    assert recorded.module is not None
    graph = recorded.wrapper.graph
    return Wrapper(
        lines=tuple(recorded.wrapper.lines),
        inputs=tuple(graph.graph_input_names),
        outputs=tuple(recorded.wrapper.codegen.get_output_refs()),
        namespace=vars(recorded.module),
        aligned=tuple(getattr(compiled, "inputs_to_check", ())),
        in_place=recorded.in_place,
    )


@contextlib.contextmanager
def _noting_in_place(recorded: Recorded, given: int) -> Generator[None, None, None]:
    """Note what Inductor would write in place, and don't let it. Call with `LOCK` held.

    In the order with nothing recomputed, it is what nobody needs any more: whether that is so in
    another order is seen there. `given` is how many arguments may be written over.
    """
    from torch._inductor import config, graph
    from torch._inductor.scheduler import SchedulerNode
    from torch._inductor.virtualized import V

    decide, donated = SchedulerNode.decide_inplace_update, graph.get_donated_idxs

    def decide_inplace_update(self: Any) -> None:
        kernel = V.kernel
        args = getattr(kernel, "args", None)
        if args is None or threading.get_ident() != recorded.thread:
            decide(self)
            return
        kept = {
            name: copy.copy(getattr(kernel, name))
            for name in ("inplace_update_buffers", "mutations")
            if hasattr(kernel, name)
        }
        args.make_inplace = lambda over, name: recorded.in_place.setdefault(name, over)
        try:
            with config.patch(inplace_buffers=True):
                decide(self)
        finally:
            del args.make_inplace
            for name, value in kept.items():
                setattr(kernel, name, value)

    SchedulerNode.decide_inplace_update = decide_inplace_update
    graph.get_donated_idxs = lambda: list(range(given))
    try:
        yield
    finally:
        SchedulerNode.decide_inplace_update = decide
        graph.get_donated_idxs = donated


@contextlib.contextmanager
def _ungrouped() -> Generator[None, None, None]:
    """A function of its own for each loop nest, on a CPU. Call with `LOCK` held.

    Inductor writes all nests up to the next call of a library into one C++ function, which spares
    some calls of microseconds. Each nest alone makes fewer values, and can be run again for them.
    """
    from torch._inductor.codegen.cpp import CppScheduling

    limit = CppScheduling.MAX_FUSED_KERNEL_ARGS_NUM
    CppScheduling.MAX_FUSED_KERNEL_ARGS_NUM = 0
    try:
        yield
    finally:
        CppScheduling.MAX_FUSED_KERNEL_ARGS_NUM = limit


# What a kernel that Inductor writes calls to draw a number.
_DRAWING = ("rand", "randn", "randint64", "rand_eager")


def _with_draws_apart(choices: Any) -> Any:
    """Inductor's choices, but on a CPU nothing is fused with what draws and reads more than seeds.

    There a draw takes as long as hundreds of sums. A softmax that is in one kernel with its dropout
    would cost as much to run again, where the mask, at a byte an element, can be kept.
    """
    chosen = type(choices)
    if getattr(chosen, "draws_apart", False):
        return choices

    class Choices(chosen):  # type: ignore[misc, valid-type]
        draws_apart = True

        def can_fuse(self, scheduler: Any, node1: Any, node2: Any, *rest: Any) -> bool:
            if _draws_with_others(node1, node2):
                return False
            return bool(choices.can_fuse(scheduler, node1, node2, *rest))

    return Choices()


def _draws_with_others(node1: Any, node2: Any) -> bool:
    nodes = [*node1.get_nodes(), *node2.get_nodes()]
    drawing = [node for node in nodes if _draws_numbers(node)]
    if not drawing or node1.get_device().type != "cpu":
        return False
    if len(drawing) > 1:
        return True
    (draw,) = drawing
    made = {name for node in nodes for name in node.get_buffer_names()}
    read = {dep.name for node in nodes if node is not draw for dep in node.read_writes.reads}
    return not read <= made


def _draws_numbers(node: Any) -> bool:
    body = getattr(node, "_body", None)
    return body is not None and any(map(body.has_op, _DRAWING))


def copy_aligned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor, strides and all, at the begin of a block."""
    from torch._inductor.utils import clone_preserve_strides

    return clone_preserve_strides(tensor)


def reinterpret(tensor: Any, size: Any, stride: Any, offset: int = 0) -> Any:
    """What Inductor's `reinterpret_tensor` gives, of fake tensors too."""
    return torch.as_strided(tensor, size, stride, tensor.storage_offset() + offset)
