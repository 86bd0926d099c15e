"""What the user wants kept, or made again, whatever a plan would gain by the other.

Three ways to say so: `keep` around a value in a model, the patterns of a `Policy`, and torch's own
selective checkpointing, whose regions are planned like everything else unless a policy honours
them. What those must make again is `must_recompute`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.errors import OptionError
from fxremat.graph import JointGraph, Operation
from fxremat.nodes import module_path, op_name

KEPT = "kept as asked"
"""How the reasons begin that come from here."""

REGIONS = ("ignore", "honour")


def keep(x: torch.Tensor) -> torch.Tensor:
    """`x`, which a plan never makes again: it stays in memory from its making to its last use.

    To be called in a model, on what is dear to make or must not be made twice. Without a plan, as
    under another backend, it is `x` and nothing else.
    """
    return torch_hooks.marked(x, KEPT) if torch.compiler.is_compiling() else x


@dataclass(frozen=True)
class Policy:
    """What plans keep: ops of the forward that run once, so that backward finds what they made.

    `keep` are patterns (``*`` for anything) of what an op is called ("aten.mm"), of the module that
    it is in, as `named_modules()` has it ("blocks.*.attn"), or of its name in the graph ("gelu_3").
    `regions` says whether torch's selective checkpointing is obeyed, "honour" or "ignore": what it
    marks as MUST_SAVE is kept, and what it marks as MUST_RECOMPUTE is not held from forward to
    backward, but made again where backward needs it, at any budget.

    Raises `OptionError` for other arguments.
    """

    keep: tuple[str, ...] = ()
    regions: str = "ignore"

    def __post_init__(self) -> None:
        given = cast("object", self.keep)
        if not isinstance(given, tuple) or not all(
            isinstance(each, str) and each for each in cast("tuple[object, ...]", given)
        ):
            raise OptionError(
                f"keep is {given!r}: give patterns of ops, modules or names, such as "
                "('aten.mm', 'blocks.*.attn')"
            )
        if self.regions not in REGIONS:
            raise OptionError(f"regions is {self.regions!r}: it is one of {', '.join(REGIONS)}")

    @staticmethod
    def of(policy: object) -> Policy:
        """A policy; one pattern or several make one, and None is the one that asks for nothing."""
        if policy is None:
            return NOTHING
        if isinstance(policy, Policy):
            return policy
        if isinstance(policy, str):
            return Policy((policy,))
        if isinstance(policy, Sequence):
            return Policy(tuple(cast("Sequence[str]", policy)))
        raise OptionError(
            f"policy is a {type(policy).__name__}: give a fxremat.Policy, or patterns of what is "
            "to be kept"
        )


NOTHING = Policy()


@dataclass(frozen=True)
class Kept:
    """Why each operation is kept that is asked for, and the patterns that no operation has."""

    why: dict[Operation, str]
    unmet: tuple[str, ...]


def kept_by(policy: Policy, joint: JointGraph) -> Kept:
    """What a policy and the model's own marks keep of a graph."""
    marked = {
        joint.storage_of[node]
        for node in joint.module.graph.nodes
        if node in joint.storage_of and torch_hooks.mark_of(node) == KEPT
    }
    met: set[str] = set()
    why: dict[Operation, str] = {}
    for operation in joint.forward:
        patterns = [p for p in policy.keep if any(_matches(p, n) for n in operation.nodes)]
        met.update(patterns)
        if marked.intersection(operation.makes):
            why[operation] = f"{KEPT}: fxremat.keep"
        elif patterns:
            why[operation] = f"{KEPT}: {patterns[0]}"
        elif policy.regions == "honour" and any(map(_must_be_saved, operation.nodes)):
            why[operation] = f"{KEPT}: MUST_SAVE"
    return Kept(why, tuple(pattern for pattern in policy.keep if pattern not in met))


def _matches(pattern: str, node: fx.Node) -> bool:
    parts = module_path(node).split(".")
    modules = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    op = op_name(node.target)
    names = [node.name, op, f"{getattr(node.target, 'namespace', '')}.{op}", *modules]
    return any(fnmatchcase(name, pattern) for name in names if name)


def _must_be_saved(node: fx.Node) -> bool:
    return torch_hooks.checkpoint_policy(node) == "MUST_SAVE"
