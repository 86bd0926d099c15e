"""Which ops draw random numbers: all that torch tags so, but for a few that are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

from fxremat.classify import draws_nothing, is_random
from fxremat.nodes import schema_arguments

aten = torch.ops.aten
X = torch.rand(4, 2, 16, 8)


def seeded_ops() -> list[torch._ops.OpOverload]:
    """Every op of torch's that is tagged as drawing random numbers."""
    found: list[torch._ops.OpOverload] = []
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = name.partition("::")
        packet, _, overload = rest.partition(".")
        try:
            op = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
        except (AttributeError, RuntimeError):
            continue
        if torch.Tag.nondeterministic_seeded in op.tags:
            found.append(op)
    return found


# What stops each op that can be stopped, with the reason.
FUSED_ATTENTION = "drops with dropout_p, and draws only for that"
IN_TRAINING = "returns its input in evaluation"
KNOWN = {
    "aten::_scaled_dot_product_attention_math": ("dropout_p", FUSED_ATTENTION),
    "aten::_scaled_dot_product_flash_attention": ("dropout_p", FUSED_ATTENTION),
    "aten::_scaled_dot_product_flash_attention_for_cpu": ("dropout_p", FUSED_ATTENTION),
    "aten::_scaled_dot_product_efficient_attention": ("dropout_p", FUSED_ATTENTION),
    "aten::_scaled_dot_product_efficient_attention_backward": ("dropout_p", FUSED_ATTENTION),
    "aten::_scaled_dot_product_cudnn_attention": ("dropout_p", FUSED_ATTENTION),
    "aten::_scaled_dot_product_cudnn_attention_backward": ("dropout_p", FUSED_ATTENTION),
    "aten::_scaled_dot_product_fused_attention_overrideable": ("dropout_p", FUSED_ATTENTION),
    "aten::_flash_attention_forward": ("dropout_p", FUSED_ATTENTION),
    "aten::_efficient_attention_forward": ("dropout_p", FUSED_ATTENTION),
    "aten::_cudnn_attention_forward": ("dropout_p", FUSED_ATTENTION),
    "aten::_cudnn_attention_backward": ("dropout_p", FUSED_ATTENTION),
    "aten::native_dropout": ("train", IN_TRAINING),
    "aten::rrelu_with_noise_functional": ("training", IN_TRAINING),
}


def test_every_seeded_op_is_random_unless_it_is_named() -> None:
    seeded = seeded_ops()
    assert len(seeded) > 100
    stopped: set[str] = set()
    for op in seeded:
        name = op._schema.name
        for argument in schema_arguments(op):
            # Any argument at what could stop it, by itself.
            for value in (0, 0.0, False, None):
                short = name.split("::")[1]
                if draws_nothing(short, lambda n, a=argument, v=value: v if n == a.name else 1):
                    assert KNOWN[name][0] == argument.name
                    stopped.add(name)
    assert stopped == set(KNOWN) & {op._schema.name for op in seeded}


def node_of(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    return fx.Graph().call_function(target, args, kwargs)


@pytest.mark.parametrize(
    ("target", "args"),
    [
        (aten.bernoulli.p, (X, 0.0)),
        (aten.bernoulli.p, (X, 1.0)),
        (aten.native_dropout.default, (X, 0.0, True)),
        (aten.native_dropout.default, (X, 0.5, True)),
        (aten.native_dropout.default, (X, 0.5, None)),
        (aten.native_dropout.default, (X, 0.5, False)),
        (aten.rrelu_with_noise_functional.default, (-X, X, 0.1, 0.3, True)),
        (aten.rrelu_with_noise_functional.default, (-X, X, 0.1, 0.3, False)),
        (aten._scaled_dot_product_flash_attention_for_cpu.default, (X, X, X, 0.0)),
        (aten._scaled_dot_product_attention_math.default, (X, X, X, None, 0.0)),
        (aten._scaled_dot_product_attention_math.default, (X, X, X, None, 0.5)),
        (aten.poisson.default, (X,)),
        (aten.sin.default, (X,)),
    ],
)
def test_what_is_said_to_draw_draws(target: Any, args: tuple[Any, ...]) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    target(*args)
    drew = not torch.equal(before, torch.get_rng_state())
    assert is_random(node_of(target, *args)) == drew
