"""For hosts that only know Inductor: its seam for partitioners, and what it makes of a pair."""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import re
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch._functorch.config
from torch import fx
from torch._functorch import partitioners
from torch._guards import TracingContext
from torch._subclasses import FakeTensorMode

from fxremat.inductor_hooks.compile import compile_half, examples_of, known, reinterpret
from fxremat.inductor_hooks.lines import LOCK
from fxremat.torch_hooks import lazy_graph_module


def configured_by(settings: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    """Inductor's own configuration, changed within."""
    from torch._inductor import config

    return config.patch(settings)


def be_partitioner(kind: type) -> None:
    """Have Inductor take instances of a class for partitioners of its own kind."""
    from torch._inductor.custom_graph_pass import CustomPartitionerFn

    CustomPartitionerFn.register(kind)


def copy_graph(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of a graph that may be changed; what it computes on is shared."""
    graph, new = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in module.graph.nodes:
        new[node] = graph.node_copy(node, lambda each: new[each])
    return lazy_graph_module(module, graph)


def merge_equal_nodes(joint: fx.GraphModule) -> None:
    """What Inductor's min-cut begins with."""
    from torch._functorch.compile_utils import fx_graph_cse

    joint.graph.eliminate_dead_code()
    joint.graph = fx_graph_cse(joint.graph)
    joint.recompile()


def min_cut(
    joint: fx.GraphModule, num_fwd_outputs: int, static: Sequence[int]
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The two halves that plain `torch.compile` takes. The joint graph is changed."""
    with torch._functorch.config.patch(activation_memory_budget=1.0):
        return partitioners.min_cut_rematerialization_partition(
            joint,
            (),
            compiler="inductor",
            num_fwd_outputs=num_fwd_outputs,
            static_lifetime_input_indices=list(static),
        )


def as_autograd_orders(backward: fx.GraphModule) -> fx.GraphModule:
    """A backward graph with its recomputations where they are first needed, as min-cut has it."""
    return partitioners.reordering_to_mimic_autograd_engine(backward)


class _Generated(BaseException):
    """The wrapper of a graph is written; nothing is to be compiled."""


def generate_pair(
    forward: fx.GraphModule, backward: fx.GraphModule, num_fwd_outputs: int
) -> tuple[str, str]:
    """The wrappers that Inductor writes for both halves, with the configuration that is set.

    No kernel is compiled, and the graphs stay as they are. Called where AOTAutograd asks for a
    partition.
    """
    inputs = examples_of(forward)
    first, strides = _generate(forward, inputs, range(num_fwd_outputs), is_backward=False)
    results = next(iter(forward.graph.find_nodes(op="output"))).args[0]
    lies = {
        node.name: stride
        for node, stride in zip(cast("tuple[Any, ...]", results), strides, strict=False)
        if isinstance(node, fx.Node)
    }
    given: list[Any] = []
    for node in backward.graph.find_nodes(op="placeholder"):
        value, stride = node.meta["val"], lies.get(node.name)
        if isinstance(value, torch.Tensor) and stride is not None:
            value = value.as_strided(value.size(), stride)
        given.append(value)
    with _donated(forward, backward):
        second, _ = _generate(backward, given, (), is_backward=True)
    return first, second


def _generate(
    module: fx.GraphModule, inputs: Sequence[Any], visible: Sequence[int], *, is_backward: bool
) -> tuple[str, list[Any]]:
    """The wrapper of one half, and the strides of what it returns."""
    from torch._inductor import config
    from torch._inductor.graph import GraphLowering

    module = copy_graph(module)
    output = next(iter(module.graph.find_nodes(op="output")))
    output.meta["user_visible_output_idxs"] = list(visible)
    thread, to_module = threading.get_ident(), GraphLowering.compile_to_module
    written: list[tuple[str, list[Any]]] = []

    def compile_to_module(self: Any) -> Any:
        if threading.get_ident() != thread:
            return to_module(self)
        code, _ = self.codegen()
        strides = [
            tuple(map(int, each.get_stride())) if each.maybe_get_stride() is not None else None
            for each in self.graph_outputs
        ]
        written.append((code.value, strides))
        raise _Generated

    off = {"fx_graph_cache": False, "fx_graph_remote_cache": False, "cpp_wrapper": False}
    with LOCK:
        GraphLowering.compile_to_module = compile_to_module
        try:
            with config.patch(known(config, off)), torch.no_grad():
                compile_half(module, inputs, is_backward=is_backward)
        except _Generated:
            pass
        finally:
            GraphLowering.compile_to_module = to_module
    return written[0]


@contextlib.contextmanager
def _donated(forward: fx.GraphModule, backward: fx.GraphModule) -> Generator[None, None, None]:
    """What a backward graph may write to of what it is given, as AOTAutograd says it."""
    from torch._functorch._aot_autograd import graph_compile

    context = TracingContext.try_get()
    about = None if context is None else context.fw_metadata
    if about is None or not torch._functorch.config.donated_buffer:
        yield
        return
    before = about.bw_donated_idxs
    about.bw_donated_idxs = graph_compile.collect_bw_donated_buffer_idxs(forward, backward, about)
    try:
        yield
    finally:
        about.bw_donated_idxs = before


@dataclass(frozen=True)
class Moment:
    """The bytes in use while a wrapper runs, and the op that runs then, where it is one."""

    nbytes: int
    op: fx.Node | None = None


def replay_pair(
    codes: tuple[str, str],
    forward: fx.GraphModule,
    backward: fx.GraphModule,
    num_fwd_outputs: int,
    size_of: Callable[[torch.Tensor], int],
    is_held: Callable[[torch.Tensor], bool],
) -> list[Moment]:
    """Run two generated wrappers on fake tensors, without their kernels, and note what is in use.

    `size_of` says what a new tensor counts for, `is_held` which gradients backward is given live to
    its end. What forward is given counts for nothing.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    meter = _meter(size_of)

    def fake(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        with mode:
            return torch.empty_strided(
                tuple(value.size()), tuple(value.stride()), dtype=value.dtype, device=value.device
            )

    inputs = [fake(value) for value in examples_of(forward)]
    for value in inputs:
        meter.note(value, counts=False)
    with mode, meter:
        results = _loaded(codes[0])(list(inputs))
    names = [
        node.name if isinstance(node, fx.Node) else ""
        for node in cast(
            "tuple[Any, ...]", next(iter(forward.graph.find_nodes(op="output"))).args[0]
        )
    ]
    by_name = dict(zip(names, results, strict=True))
    held = list(results[:num_fwd_outputs])
    given: list[Any] = []
    for node in backward.graph.find_nodes(op="placeholder"):
        if node.name in by_name:
            given.append(by_name[node.name])
            continue
        value = fake(node.meta["val"])
        meter.note(value)
        if isinstance(value, torch.Tensor) and is_held(value):
            held.append(value)
        given.append(value)
        del value
    del results, by_name
    with mode, meter:
        gradients = _loaded(codes[1])(given)
    meter.moments.append(Moment(meter.live))
    del gradients, held
    return meter.moments


def _meter(size_of: Callable[[torch.Tensor], int]) -> Any:
    """A mode that notes the bytes of all storages made within it, as long as they live."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Meter(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.live = 0
            self.sizes: dict[int, int] = {}
            self.moments: list[Moment] = []

        def note(self, value: Any, *, counts: bool = True) -> bool:
            if not isinstance(value, torch.Tensor):
                return False
            storage = value.untyped_storage()
            key = storage._cdata
            if key in self.sizes:
                return False
            self.sizes[key] = size_of(value) if counts else 0
            self.live += self.sizes[key]
            weakref.finalize(storage, self.gone, key)
            return True

        def gone(self, key: int) -> None:
            self.live -= self.sizes.pop(key, 0)

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            results = result if isinstance(result, (tuple, list)) else (result,)
            is_new = [self.note(each) for each in results]
            if any(is_new):
                made_by = None
                if func is not torch.ops.aten.empty_strided.default:
                    made_by = _as_node(func, args, kwargs or {}, result)
                self.moments.append(Moment(self.live, made_by))
            return result

    return Meter()


def _as_node(func: Any, args: Any, kwargs: Any, result: Any) -> fx.Node:
    """A call of an op on fake tensors, as a node of a graph of its own."""
    from torch.utils import _pytree as pytree

    graph = fx.Graph()

    def given(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        node = graph.placeholder("given")
        node.meta["val"] = value
        return node

    args, kwargs = pytree.tree_map(given, (args, kwargs))
    node = graph.call_function(func, args, kwargs)
    node.meta["val"] = result
    return node


def _loaded(code: str) -> Callable[[list[Any]], Any]:
    """A generated wrapper whose kernels do nothing."""
    code = re.sub(r"^async_compile = AsyncCompile\(\)", "async_compile = KERNELS", code, flags=re.M)
    code = re.sub(r"^if __name__ == .__main__.:[\s\S]*", "", code, flags=re.M)
    namespace: dict[str, Any] = {"__name__": "replayed", "KERNELS": _NoKernels()}
    exec(compile(code, "wrapper", "exec"), namespace)
    for name in [name for name in namespace if name.startswith("empty_strided_")]:
        namespace[name] = _empty_on(name.removeprefix("empty_strided_"))
    namespace["reinterpret_tensor"] = reinterpret
    for name in ("assert_size_stride", "assert_alignment"):
        namespace[name] = _nothing
    return namespace["call"]


def _empty_on(device: str) -> Callable[..., torch.Tensor]:
    device = device.removesuffix("_pinned").removesuffix("_p2p")

    def empty(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(size, stride, dtype=dtype, device=device)

    return empty


def _nothing(*_args: Any, **_named: Any) -> None: ...


class _NoKernel:
    """In the place of a compiled kernel, which is called or has a `run`."""

    __call__ = run = staticmethod(_nothing)


class _NoKernels:
    """In the place of what compiles a wrapper's kernels."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return _nothing if name == "wait" else lambda *_args, **_named: _NoKernel()
