"""Training steps that Dynamo can't trace as one graph, of many causes, and what holds on them.

workload = broken.get("detr").make("bench")
step = workload.step_module()          # the model with its loss inside
step(*workload.batch(0)).backward()    # batch(i): step i's inputs
"""

from __future__ import annotations

from benchmarks.broken import control, detection, graphs, speech, text, vision
from benchmarks.broken.step import BrokenStep, of_sweep

FAMILIES = (speech, text, detection, vision, graphs, control)
STEPS: dict[str, BrokenStep] = {step.name: step for family in FAMILIES for step in family.STEPS}


def get(name: str) -> BrokenStep:
    """The step of that name; one as "transformers/led" is a model of the sweep."""
    if "/" in name:
        return of_sweep(name)
    if name not in STEPS:
        raise ValueError(f"no step {name!r}; there are {', '.join(STEPS)}")
    return STEPS[name]


__all__ = ["STEPS", "BrokenStep", "get"]
