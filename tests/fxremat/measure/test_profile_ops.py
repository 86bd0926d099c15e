"""Ops run by themselves: none that could do harm, and no failure loses a compilation."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn

import fxremat
from fxremat.measure.profile_ops import OpProfiles, measurable, profile_ops, signature, signatures
from tests.numerics.steps import check_input_gradient, plan_of

aten = torch.ops.aten
CPU = torch.device("cpu")
calls: list[int] = []


@torch.library.custom_op("fxremat_test::checked", mutates_args=())
def checked(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """Divides, and refuses a divisor that invented data would have."""
    calls.append(int(n))
    assert n > 0
    return x / n


@checked.register_fake
def _(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    del n
    return torch.empty_like(x)


checked.register_autograd(
    lambda ctx, g: (g / ctx.saved_tensors[0], None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[1]),  # noqa: ARG005
)


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)


def node_of(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A node of its own; its tensor arguments are placeholders with those values."""
    graph = fx.Graph()

    def given(arg: Any) -> Any:
        if not isinstance(arg, torch.Tensor):
            return arg
        node = graph.placeholder("x")
        node.meta["val"] = arg
        return node

    node = graph.call_function(
        target, tuple(map(given, args)), {k: given(v) for k, v in kwargs.items()}
    )
    with torch.no_grad():
        node.meta["val"] = torch.empty_like(args[0])
    return node


X = torch.rand(8, 8)


def test_custom_ops_run_only_when_the_model_runs_them() -> None:
    calls.clear()
    n = torch.tensor(3)
    linear = nn.Linear(8, 8)
    optimized = fxremat.optimize(lambda x: checked(torch.tanh(linear(x)), n).sum(), budget=1.0)
    optimized(X).backward()
    assert calls == [3]
    assert "checked" in " ".join(fxremat.explain(optimized).notes)


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (torch.ops.fxremat_test.checked.default, (X, torch.tensor(3)), {}),
        (aten.add_.Tensor, (X, X), {}),
        (aten.bernoulli.p, (X, 0.5), {"generator": torch.Generator()}),
        (aten.poisson.default, (X, torch.Generator()), {}),
        (aten.mkldnn_rnn_layer_backward.default, (X,), {}),
        (aten._thnn_fused_lstm_cell.default, (X, X, X), {}),
        (aten._local_scalar_dense.default, (X,), {}),
        (aten._pad_packed_sequence.default, (X, X, True, 0, 3), {}),
        (aten._padded_dense_to_jagged_forward.default, (X, [X]), {}),
        (torch.sin, (X,), {}),
    ],
)
def test_what_is_not_run(target: Any, args: Any, kwargs: Any) -> None:
    node = node_of(target, *args, **kwargs)
    assert not measurable(node)
    known = OpProfiles()
    assert profile_ops(signatures([node]), CPU, known, timing_limit_s=1.0) == {}
    assert not known.unmeasured


@pytest.mark.parametrize(
    ("target", "args"),
    [
        (aten.sin.default, (X,)),
        (aten.bernoulli.p, (X, 0.5)),
        (aten.native_dropout.default, (X, 0.5, True)),
        (aten.fake_quantize_per_tensor_affine_cachemask.default, (X, 1.0, 0, 0, 255)),
    ],
)
def test_what_is_run(target: Any, args: Any) -> None:
    assert measurable(node_of(target, *args))


@pytest.mark.parametrize("error", [AssertionError, MemoryError, torch.OutOfMemoryError, KeyError])
def test_ops_that_fail_are_left_to_their_traces(error: type[Exception]) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise error("no")

    failing, sin = node_of(op_of_ours(fail), X), node_of(aten.sin.default, X)
    known = OpProfiles()
    found = profile_ops(signatures([failing, sin]), CPU, known, timing_limit_s=1.0)
    assert list(found) == [signature(sin)]
    assert known.unmeasured == {signature(failing)}


def test_an_op_that_fails_while_it_is_timed_keeps_its_memory() -> None:
    runs: list[int] = []

    def fail_later(x: torch.Tensor) -> torch.Tensor:
        runs.append(0)
        if len(runs) > 1:
            raise AssertionError
        return x.sin()

    node = node_of(op_of_ours(fail_later), X)
    (profile,) = profile_ops(signatures([node]), CPU, OpProfiles(), timing_limit_s=1.0).values()
    assert profile.output_bytes == (X.nbytes,)
    assert profile.seconds is None


def op_of_ours(kernel: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """An op in the namespace that is run to be measured, with that kernel."""
    name = f"test_{next(numbers)}"
    torch.library.define(f"fxremat::{name}", "(Tensor x) -> Tensor")
    torch.library.impl(f"fxremat::{name}", "cpu")(kernel)
    return getattr(torch.ops.fxremat, name).default


numbers = itertools.count()


def test_a_broken_profiler_does_not_lose_the_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the profiler is gone")

    monkeypatch.setattr(torch._C._autograd, "_enable_profiler_legacy", broken)
    x = torch.randn(16, 8)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return x.sin().cos().square().mean()

    optimized = fxremat.optimize(loss, budget=1.0)
    with pytest.warns(UserWarning, match="the profiler is gone"):
        check_input_gradient(loss, optimized, x)
    assert any("could not be measured" in note for note in fxremat.explain(optimized).notes)


@pytest.mark.parametrize("warming_up", [False, True])
def test_a_profiler_of_the_users_changes_no_plan_and_sees_no_measurement(warming_up: bool) -> None:
    """At the first step and at a new shape."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3))
    shapes = [(8, 3, size, size) for size in (16, 12)]

    def loss(x: torch.Tensor) -> torch.Tensor:
        return model(x).square().mean()

    profiler = torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU],
        schedule=torch.profiler.schedule(wait=0, warmup=int(warming_up), active=9),
        profile_memory=True,
    )
    optimized, profiled = (fxremat.optimize(loss, budget=1.0, cost="flops") for _ in range(2))
    for shape in shapes:
        check_input_gradient(loss, optimized, torch.randn(shape))
    with profiler:
        for shape in shapes:
            check_input_gradient(loss, profiled, torch.randn(shape))
            profiler.step()
    for graph in (0, 1):
        alone, beside = (plan_of(each, graph) for each in (optimized, profiled))
        assert beside.problem == alone.problem
    assert "could not be measured" not in str(fxremat.explain(profiled))
    assert "aten::convolution_backward" in {event.name for event in profiler.events()}
    assert not [e for e in profiler.events() if e.cpu_memory_usage == 1_000_003], "a mark"


def test_a_profiler_in_another_thread() -> None:
    x = torch.randn(16, 8)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return x.sin().cos().square().mean()

    optimized = fxremat.optimize(loss, budget=1.0)
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler,
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(check_input_gradient, loss, optimized, x).result()
        x.exp()
    assert "aten::exp" in {event.name for event in profiler.events()}


def test_signatures_tell_storages_apart() -> None:
    whole = torch.zeros(100, 8)
    nodes = [
        node_of(aten.copy.default, part, torch.zeros(10, 8))
        for part in (torch.zeros(10, 8), whole[:10], whole[20:30])
    ]
    assert len({signature(node) for node in nodes}) == 3
    profiles = profile_ops(signatures(nodes), CPU, OpProfiles(), timing_limit_s=0.0)
    # `copy` clones the whole storage that its first argument lies in.
    own, first, second = (profiles[signature(node)].output_bytes for node in nodes)
    assert own == (10 * 8 * 4,)
    assert first == second == (whole.nbytes,)


def test_what_is_marked_as_conjugated_or_negated_is_measured_so() -> None:
    z = torch.randn(64, dtype=torch.complex64)
    nodes = [node_of(aten.mul.Tensor, a, b) for a, b in ((z, z), (z.conj(), z))]
    nodes += [node_of(aten.mul.Tensor, a, z.real) for a in (z.real, z.conj().imag)]
    profiles = profile_ops(signatures(nodes), CPU, OpProfiles(), timing_limit_s=0.0)
    taken = [profiles[signature(node)].workspace_bytes for node in nodes]
    assert taken == [0, z.nbytes, 0, z.nbytes // 2]


def test_pivots_count_from_one() -> None:
    pivots = torch.ones(8, dtype=torch.int32)
    node = node_of(aten.linalg_lu_solve.default, X, pivots, X)
    assert profile_ops(signatures([node]), CPU, OpProfiles(), timing_limit_s=0.0)


@pytest.mark.parametrize("shape", [(5, 5), (16, 5, 5)])
def test_matrix_exponentials_have_room_for_large_norms(shape: tuple[int, ...]) -> None:
    matrices = torch.rand(shape)
    node = node_of(aten.linalg_matrix_exp.default, matrices)
    (profile,) = profile_ops(signatures([node]), CPU, OpProfiles(), timing_limit_s=0).values()
    for norm in (0.1, 1.0, 10.0, 100.0, 10_000.0):
        given = matrices * norm
        taken = fxremat.measure_peak(lambda given=given: torch.linalg.matrix_exp(given))
        assert taken.peak_bytes <= profile.workspace_bytes + matrices.nbytes


def test_ops_that_torch_writes_in_python_are_measured() -> None:
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=2, allow_retain_graph=True)
    weight, target = torch.rand(4, 3), torch.zeros(8, dtype=torch.long)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear_cross_entropy(x.sin(), weight, target, options=options)

    call = fxremat.optimize(loss, budget=1.0)
    x = torch.rand(8, 3, requires_grad=True)
    call(x).backward()
    x.grad = None
    taken = fxremat.measure_peak(lambda: call(x).backward())
    assert taken.peak_bytes <= fxremat.explain(call).planned_peak_bytes


RECURRENT = """
    import sys, warnings
    import torch
    from torch import nn
    import fxremat
    from tests.numerics.steps import assert_same, plan_of, run_steps

    class Recurrent(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.rnn = getattr(nn, name)(16, 24, num_layers=2, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0].square().mean()

    def train(name):
        module = Recurrent(name)
        batches = [(torch.randn(48, 2, 16),) for _ in range(3)]
        # nn.GRU rounds differently in AOTAutograd's own graph.
        call = module if name != "GRU" else torch.compile(
            module, backend="aot_eager_default_partitioner", fullgraph=True, dynamic=False
        )
        expected = run_steps(module, call, batches)
        optimized = fxremat.optimize(module, budget=0.8, solver="greedy", fullgraph=True)
        try:
            assert_same(expected, run_steps(module, optimized, batches))
        except fxremat.FxrematError as error:
            return f"{type(error).__name__} {error}"
        def step():
            module.zero_grad(set_to_none=True)
            optimized(*batches[0]).backward()
        step()
        module.zero_grad(set_to_none=True)
        peak = fxremat.measure_peak(step).peak_bytes
        assert peak <= plan_of(optimized).budget_bytes, (peak, plan_of(optimized).budget_bytes)
        return "trained"

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for layer in sys.argv[1:]:
        name, kernels, dynamo = layer.split()
        torch._dynamo.reset()
        torch._dynamo.config.allow_rnn = dynamo == "allowed"
        torch.manual_seed(0)
        with torch.backends.mkldnn.flags(enabled=kernels == "fused"):
            print(f"{layer}:", " ".join(train(name).split()), flush=True)
"""
LAYERS = {
    "LSTM fused allowed": "UnsupportedGraphError .*mkldnn.set_flags",
    "LSTM plain allowed": "trained$",
    "GRU fused allowed": "trained$",
    "RNN fused allowed": "trained$",
    "LSTM fused refused": "GraphBreakError .*allow_rnn=True",
}


def test_recurrent_layers() -> None:
    """In a process of their own: running these kernels on invented data used to kill it."""
    root = Path(__file__).parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RECURRENT), *LAYERS],
        capture_output=True,
        text=True,
        cwd=root,
        env=_environment(root),
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    said = dict(line.split(": ", 1) for line in ran.stdout.splitlines())
    assert said.keys() == LAYERS.keys()
    for layer, outcome in LAYERS.items():
        assert re.match(outcome, said[layer]), said[layer]


def _environment(root: Path) -> dict[str, str]:
    paths = (str(root), str(root / "solvers"), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def test_the_plan_sees_what_a_copy_into_a_slice_takes() -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        z = x.new_zeros(1000, 16)
        z[:10] = x * 2
        return (z.sin() * z).square().mean()

    x = torch.randn(10, 16, requires_grad=True)
    optimized = fxremat.optimize(loss, budget=0.95)
    check_input_gradient(loss, optimized, x.detach())

    def step() -> None:
        x.grad = None
        optimized(x).backward()

    step()
    x.grad = None
    assert fxremat.measure_peak(step).peak_bytes <= plan_of(optimized).budget_bytes
