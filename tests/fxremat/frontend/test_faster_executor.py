"""What `executor="auto"` chooses, and what it says of that."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import fx, nn

import fxremat
from fxremat.errors import SymbolicSizeError, UnsupportedGraphError
from fxremat.execute.eager import Eager
from fxremat.execute.executor import Executor
from fxremat.frontend.faster_executor import Choice, Weighed, choose
from fxremat.graph import JointGraph
from fxremat.inductor import compile as inductor_compile
from fxremat.inductor.executor import Inductor

GRAPH = fx.symbolic_trace(nn.Linear(2, 2))


def chosen(**seconds: Weighed | Exception | None) -> Choice | None:
    def weigh(executor: Executor, _module: fx.GraphModule, _inputs: Sequence[Any]) -> Any:
        found = seconds[executor.name]
        if isinstance(found, Exception):
            raise found
        return found

    return choose(Inductor(), Eager(), weigh, GRAPH, ())


@pytest.mark.parametrize(("kernels_s", "faster"), [(0.5, "inductor"), (1.5, "eager")])
def test_the_faster_one_by_measured_times(kernels_s: float, faster: str) -> None:
    found = chosen(inductor=Weighed(kernels_s, True), eager=Weighed(1.0, True))
    assert found is not None
    assert found.executor.name == faster
    assert "1e+03 ms" in found.reason


def test_what_was_not_timed_is_not_compared() -> None:
    found = chosen(inductor=Weighed(9.0, False), eager=Weighed(1.0, True))
    assert found is not None
    assert found.executor.name == "inductor"
    assert "wasn't measured" in found.reason


def test_what_cannot_be_planned_runs_op_by_op() -> None:
    found = chosen(inductor=UnsupportedGraphError("no such kernel"), eager=Weighed(1.0, True))
    assert found is not None
    assert found == Choice(Eager(), "no such kernel")


def test_nothing_is_chosen_without_a_backward_or_with_sizes_to_fix() -> None:
    assert chosen(inductor=None, eager=None) is None
    with pytest.raises(SymbolicSizeError):
        chosen(inductor=SymbolicSizeError("s0"), eager=None)


def test_the_report_says_why() -> None:
    """A model of some kernels, whichever of the two is faster on this processor."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1))
    optimized = fxremat.optimize(model, budget=1.0, executor="auto")
    optimized(torch.randn(256, 64)).sum().backward()
    report = fxremat.explain(optimized)
    (note,) = [note for note in report.notes if note.startswith("Run by executor")]
    assert repr(report.executor) in note
    assert "inductor" in note
    assert "eager" in note
    assert " ms" in note


@pytest.mark.parametrize("policy", [fxremat.Policy(regions="honour"), "aten.gelu"])
def test_a_policy_is_kept_op_by_op(policy: object) -> None:
    """Inductor's kernels would keep none, and warn of that."""
    model = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 1))
    optimized = fxremat.optimize(model, budget=1.0, executor="auto", cost="roofline", policy=policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimized(torch.randn(8, 16)).sum().backward()
    report = fxremat.explain(optimized)
    assert report.executor == "eager"
    assert any("a policy" in note for note in report.notes)


def test_kernels_that_were_weighed_are_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    compile_pair = inductor_compile.compile_pair

    def counted(*args: Any, **named: Any) -> Any:
        compiled.append(args)
        return compile_pair(*args, **named)

    def weighed(graph: JointGraph) -> Weighed:
        gc.collect()  # What nothing holds is gone when the second one is weighed.
        return Weighed(1.0 if graph.executor == "inductor" else 2.0, True)

    monkeypatch.setattr(inductor_compile, "compile_pair", counted)
    monkeypatch.setattr(Weighed, "of", weighed)
    model = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 1))
    optimized = fxremat.optimize(model, budget=1.0, executor="auto", cost="roofline")
    optimized(torch.randn(8, 16)).sum().backward()
    assert fxremat.explain(optimized).executor == "inductor"
    assert len(compiled) == 1
