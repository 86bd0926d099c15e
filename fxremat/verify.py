"""Hold the rewritten graphs against the plan, before anything runs.

What is checked: both graphs are well formed, and by the executor's own prediction, which sees the
graphs and not the plan, they need at no moment more memory than the plan promises; copies that the
autograd engine makes after backward included. Graphs that need less keep its promise. What isn't:
sizes and workspaces are those that were measured, and the values that the graphs compute are not
compared, as that takes a run of the step.
"""

from __future__ import annotations

from fxremat.errors import VerificationError
from fxremat.execute.executor import Executor
from fxremat.memory_model import MemoryModel
from fxremat.rewrite import Rewritten


def check_peak(
    rewritten: Rewritten,
    planned_bytes: int,
    executor: Executor,
    memory: MemoryModel,
    accumulated_bytes: int = 0,
) -> None:
    """Raise `VerificationError` where the graphs' own peak is above the planned one.

    `accumulated_bytes` is what the autograd engine takes on top once backward has ended.
    """
    for module in (rewritten.forward, rewritten.backward):
        module.graph.lint()
    in_use = executor.predict(rewritten, memory)
    peak = max([*in_use, in_use[-1] + accumulated_bytes])
    if peak > planned_bytes:
        raise VerificationError(
            f"the rewritten graphs need {peak} bytes where the plan says {planned_bytes}: this is "
            "a defect of fxremat, please report it with the model"
        )
