"""Small graphs through all passes, held against files that show what comes out.

Each file in `golden/` has the joint graph, the problem, the schedule and the two rewritten graphs.
Every op takes a second and no workspace, so that they are the same on any processor.
``FXREMAT_UPDATE_GOLDEN=1`` in the environment writes them anew: look at the difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from fxremat.execute.eager import Eager
from fxremat.frontend.backend import Backend
from fxremat.frontend.compiled import Compiled
from fxremat.frontend.graph_breaks import WholeStep
from fxremat.graph import Cost, Operation
from fxremat.plan.options import make_options
from fxremat_solvers import RematProblem, Schedule

FOLDER = Path(__file__).parent / "golden"
UPDATE = "FXREMAT_UPDATE_GOLDEN" in os.environ

pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith("2.13"), reason="another torch traces other graphs"
)


@dataclass(frozen=True)
class OneSecond(Eager):
    """Eager execution, priced alike everywhere."""

    def cost(self, unit: Operation, nodes: Sequence[Cost]) -> Cost:
        return replace(super().cost(unit, nodes), seconds=1.0, workspace_bytes=0)


def dropout() -> tuple[Callable[..., Any], torch.Tensor]:
    """A random op that is drawn again, from the state that its first run kept."""
    weight = nn.Parameter(torch.randn(16, 16))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (F.dropout(torch.sin(x @ weight), 0.5).cos() @ weight).sin().sum()

    return loss, torch.randn(2048, 16)


def batch_norm() -> tuple[Callable[..., Any], torch.Tensor]:
    """Statistics that are updated once, and a BatchNorm that is computed again without them."""
    model = nn.Sequential(nn.BatchNorm1d(16), nn.Sigmoid(), nn.BatchNorm1d(16), nn.Sigmoid())
    return lambda x: model(x).square().sum(), torch.randn(64, 16, requires_grad=True)


def views() -> tuple[Callable[..., Any], torch.Tensor]:
    """A tensor that is read through three views, which are written where they are needed."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.exp() * 2).chunk(3, dim=1)
        return ((q * k).tanh() * v.sin()).sum()

    return loss, torch.randn(64, 48, requires_grad=True)


def states_of(function: Callable[..., Any], x: torch.Tensor, budget: float) -> dict[str, Any]:
    """The state after each pass."""
    states: dict[str, Any] = {}

    def keep(name: str, state: Any, _seconds: float) -> Any:
        states[name] = state
        return state

    options = make_options({"budget": budget, "cost": "flops", "solver": "greedy"})
    backend = Backend(options, WholeStep(fullgraph=True), OneSecond(), between=(keep,))
    Compiled.of(function, backend)(x).backward()
    return states


@pytest.mark.parametrize("case", [dropout, batch_norm, views])
def test_what_comes_out_of_every_pass(case: Callable[[], Any]) -> None:
    function, x = case()
    states = states_of(function, x, 1.0)
    plan = states["solve"].plan
    least = plan.lowest.peak_bytes
    states = states_of(function, x, least / plan.baseline_peak_bytes + 1e-3)
    plan, graphs = states["solve"].plan, states["verify"].graphs
    text = "\n\n".join(
        (
            f"{case.__doc__}",
            f"joint graph\n{_lines(plan.graph.module.graph)}",
            f"problem: {plan.baseline_peak_bytes} B with nothing recomputed\n"
            f"{_problem(plan.problem)}",
            f"schedule: {plan.peak_bytes} B of {plan.budget_bytes}, "
            f"{plan.solution.cost:g} s instead of {plan.problem.baseline_cost:g}\n"
            f"{_schedule(plan.problem, plan.schedule)}",
            f"forward\n{_lines(graphs.forward.graph)}",
            f"backward\n{_lines(graphs.backward.graph)}\n",
        )
    )
    path = FOLDER / f"{case.__name__}.txt"
    if UPDATE:
        path.write_text(text)
    assert text == path.read_text()


def _lines(graph: fx.Graph) -> str:
    lines: list[str] = []
    for node in graph.nodes:
        given = ", ".join(str(argument) for argument in (*node.args, *node.kwargs.values()))
        if node.op == "output":
            lines.append(f"  return {given}")
        elif node.op == "call_function":
            target = getattr(node.target, "__name__", node.target)
            lines.append(f"  {node.name} = {target}({given})")
        else:
            lines.append(f"  {node.op} {node.name}")
    return "\n".join(lines)


def _problem(problem: RematProblem) -> str:
    def names(values: Sequence[int]) -> str:
        return ", ".join(problem.values[value].name for value in values) or "nothing"

    sizes = [
        f"  {value.name}: {value.nbytes} B{' where it is read' if value.lazy else ''}"
        for index, value in enumerate(problem.values)
        if index not in problem.inputs and value.nbytes
    ]
    ops: list[str] = []
    for op in problem.ops:
        again = ", never again" if not op.reruns else ""
        for rerun in op.reruns:
            if (rerun.inputs, rerun.outputs) != (op.inputs, op.outputs):
                again = f"; again {names(rerun.inputs)} -> {names(rerun.outputs)}"
        ops.append(f"  {op.name}: {names(op.inputs)} -> {names(op.outputs)}{again}")
    return "\n".join((*sizes, f"  outputs: {names(problem.outputs)}", *ops))


def _schedule(problem: RematProblem, schedule: Schedule) -> str:
    seen: set[int] = set()
    lines: list[str] = []
    for op in schedule:
        lines.append(f"  {problem.ops[op].name}{' again' if op in seen else ''}")
        seen.add(op)
    return "\n".join(lines)
