"""The models that tests and benchmarks share: real ones, random weights, nothing downloaded.

workload = zoo.get("gpt2-eager").make("tiny", seed=0)
step = workload.step_module()          # the model with its loss inside
step(*workload.batch(0)).backward()    # batch(i): step i's inputs
"""

from __future__ import annotations

from benchmarks.zoo import (
    bert,
    gpt2,
    llama,
    lstm,
    mamba,
    mlp,
    ode,
    resnet,
    t5,
    two_tower,
    unet,
    vgg,
    vit,
)
from benchmarks.zoo.case import Batch, Case, LossModule, Workload

FAMILIES = (gpt2, bert, t5, llama, vit, resnet, unet, vgg, lstm, ode, mamba, two_tower, mlp)
CASES: dict[str, Case] = {case.name: case for family in FAMILIES for case in family.CASES}


def get(name: str) -> Case:
    """The case of that name."""
    if name not in CASES:
        raise ValueError(f"no model {name!r}; there are {', '.join(CASES)}")
    return CASES[name]


__all__ = ["CASES", "Batch", "Case", "LossModule", "Workload", "get"]
