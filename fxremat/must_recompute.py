"""What torch's selective checkpointing marks as MUST_RECOMPUTE: backward makes it again.

Backward then reads nothing of such an operation that forward made. Two rules come with that:

- What a region returns is not the region's: code outside of it reads it, and may hold it. So it is
  planned like everything else, as torch's partitioner saves what lies between two regions.
- What reads a marked value, in its region, and is not marked itself can't be left to the plan:
  backward could make it again from a marked value that was held. It is made again always where it
  is PREFER_RECOMPUTE, and runs once otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fxremat import torch_hooks
from fxremat.graph import Form, JointGraph, Mode, Operation, Storage
from fxremat.nodes import is_effect

REMADE = "recomputed as asked"
"""How the reasons begin that come from here."""

_ONCE = "reads what must be recomputed"


@dataclass(frozen=True)
class Remade:
    """The graph with what backward makes again, and why some can't be that is marked."""

    graph: JointGraph
    refused: dict[Operation, str]


def remade(joint: JointGraph) -> Remade:
    """A classified graph in which all that is MUST_RECOMPUTE, and can be, is made again."""
    shared = _read_elsewhere(joint)
    made: set[Storage] = set()
    modes: dict[Operation, Mode] = {}
    refused: dict[Operation, str] = {}
    for operation in joint.forward:
        policies = {torch_hooks.checkpoint_policy(node) for node in operation.nodes}
        must, reads = "MUST_RECOMPUTE" in policies, not made.isdisjoint(operation.reads)
        again = must or (reads and "PREFER_RECOMPUTE" in policies)
        never = operation.mode.form is Form.NEVER
        if again and not never and shared.isdisjoint(operation.makes):
            reason = f"{REMADE}: {'MUST' if must else 'PREFER'}_RECOMPUTE"
            modes[operation] = replace(operation.mode, reason=reason, again=True)
            made.update(operation.makes)
        elif must and never and shared.isdisjoint(operation.makes):
            refused[operation] = operation.mode.reason
        elif reads and not never:
            modes[operation] = Mode(Form.NEVER, _ONCE)
    graph = joint.with_operations([replace(o, mode=modes.get(o, o.mode)) for o in joint.operations])
    readers = [*graph.backward, *(o for o in graph.forward if o.mode.again)]
    needed = {storage for operation in readers for storage in operation.reads}
    return Remade(graph, {o: why for o, why in refused.items() if not needed.isdisjoint(o.makes)})


def _read_elsewhere(joint: JointGraph) -> set[Storage]:
    """What forward returns, and what it reads in another region than it is made in.

    Updates of buffers stand at forward's end, outside of all regions, and hold nothing.
    """
    region_of = {
        storage: torch_hooks.checkpointed_region(operation.nodes[0])
        for operation in joint.forward
        for storage in operation.makes
    }
    found = {joint.storage_of[node] for node in joint.forward_outputs}
    for operation in joint.forward:
        if any(map(is_effect, operation.nodes)):
            continue
        region = torch_hooks.checkpointed_region(operation.nodes[0])
        found.update(s for s in operation.reads if region_of.get(s, region) != region)
    return found
