"""All that fxremat compiled in this process, by either door. Nothing is kept alive by it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from rich.console import Console, Group, RenderableType
from rich.text import Text

from fxremat.errors import OptionError
from fxremat.frontend.backend import Backend, described, live_backends
from fxremat.frontend.history import CompiledGraph
from fxremat.report.shapes import PlannedShape, planned_shapes
from fxremat.report.steps import StepReport, report_on_step
from fxremat.report.text import WIDTH, beginning, human_bytes, table_of

_One = TypeVar("_One")


@dataclass(frozen=True)
class CompiledStep:
    """One graph of the process: where its code begins and ends, and how it was planned.

    `graph` is its number for ``explain(graph=...)``, which stays when others are let go of; the one
    in `planned` is its index among its model's. `model` is the number of the model or function, and
    `parameter_bytes` are what the graph reads of its parameters and buffers, `inputs` the shapes of
    what else it is given.
    """

    graph: int
    model: int
    parameter_bytes: int
    inputs: tuple[tuple[int, ...], ...]
    name: str
    planned: PlannedShape


@dataclass(frozen=True)
class CompiledSteps:
    """The graphs of the process, and the plans of steps that are several of them."""

    graphs: tuple[CompiledStep, ...]
    together: tuple[StepReport, ...]

    def __len__(self) -> int:
        return len(self.graphs)

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(asdict(self))

    def __rich__(self) -> RenderableType:
        if not self.graphs:
            return Text("Nothing is planned in this process: run a training step first.")
        table = table_of(
            "Planned in this process: fxremat.explain(graph=...) has more of each",
            ("graph", True),
            ("model", True),
            ("parameters", True),
            ("code", False),
            ("inputs", False),
            ("budget", True),
            ("planned", True),
            ("more time", True),
            ("calls", True),
        )
        for each in self.graphs:
            shape = each.planned
            sizes = ", ".join("x".join(map(str, s)) or "number" for s in each.inputs)
            table.add_row(
                str(each.graph),
                str(each.model),
                human_bytes(each.parameter_bytes),
                Text(beginning(each.name, 20)),
                beginning(sizes, 12),
                human_bytes(shape.budget_bytes),
                human_bytes(shape.planned_peak_bytes),
                f"{100 * shape.extra_seconds / (shape.baseline_seconds or 1.0):.2f} %",
                str(shape.calls),
            )
        return Group(table, *self.together)

    def __str__(self) -> str:
        text = io.StringIO()
        Console(width=WIDTH, file=text).print(self)
        return text.getvalue()


def all_graphs() -> list[tuple[Backend, CompiledGraph]]:
    """The compiled graphs that are alive, by their numbers."""
    found = [(backend, graph) for backend in live_backends() for graph in backend.history.graphs]
    return sorted(found, key=lambda each: each[1].number)


def by_number(number: int) -> tuple[Backend, CompiledGraph]:
    """A graph by its number; -1 is the newest. Raises `OptionError` where it is not there."""
    found = all_graphs()
    if number < 0 or not found:
        return one_of(found, number)
    numbers = [graph.number for _, graph in found]
    if number not in numbers:
        raise OptionError(
            f"there is no graph {number}: those that are alive are {', '.join(map(str, numbers))}"
        )
    return found[numbers.index(number)]


def compiled_steps() -> CompiledSteps:
    """What there is now, in plain figures."""
    graphs: list[CompiledStep] = []
    together: list[StepReport] = []
    for backend in live_backends():
        compiled = backend.history.graphs
        for graph, shape in zip(compiled, planned_shapes(compiled), strict=True):
            read = graph.plan.graph
            graphs.append(
                CompiledStep(
                    graph=graph.number,
                    model=backend.number,
                    parameter_bytes=read.parameter_bytes,
                    inputs=read.batch_shapes,
                    name=described(read),
                    planned=shape,
                )
            )
        kinds = () if backend.tracker is None else backend.tracker.kinds
        together += [report_on_step(kind) for kind in kinds if kind.plan is not None]
    graphs.sort(key=lambda each: each.graph)
    return CompiledSteps(tuple(graphs), tuple(together))


def one_of(found: Sequence[_One], index: int) -> _One:
    """One of what was found. Raises `OptionError` where it is not there."""
    if not found:
        raise OptionError(
            "nothing is planned: run a training step first (again, after torch._dynamo.reset()), "
            "or give optimize() example_inputs of a step that has gradients"
        )
    try:
        return found[index]
    except IndexError:
        raise OptionError(f"there is no graph {index}: {len(found)} are compiled") from None
