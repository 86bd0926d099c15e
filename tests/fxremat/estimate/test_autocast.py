"""What a GPU's autocast keeps in float32 is traced so."""

from __future__ import annotations

import torch
from torch import Tensor

from fxremat.estimate.autocast import map_autocast
from fxremat.estimate.trace import trace_step
from fxremat.nodes import op_name, tensors_of


def step(x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        made = (x @ x).softmax(-1)
        return torch.nn.functional.gelu(x @ made).exp().mean()


def types(*, mapped: bool) -> dict[str, torch.dtype | None]:
    rewrite = map_autocast if mapped else (lambda _graph: None)
    traced = trace_step(step, (torch.ones(4, 4, requires_grad=True),), {}, rewrite)
    found: dict[str, torch.dtype | None] = {}
    for node in traced.module.graph.nodes:
        found.setdefault(op_name(node.target), next((t.dtype for t in tensors_of(node)), None))
    return {name: found[name] for name in ("mm", "_softmax", "gelu", "exp")}


def test_norms_and_exponentials_are_in_float32() -> None:
    half, single = torch.bfloat16, torch.float32
    kept = {"mm": half, "_softmax": single, "gelu": half, "exp": single}
    assert types(mapped=True) == kept
    assert types(mapped=False) == dict.fromkeys(kept, half)
